"""What devices send to one another, read out of a compiled program.

    for c in read(compiled.as_text()):
      print(c.kind, c.result_bytes, c.group_size, c.times)

The text of the XLA compilers for CPU and TPU is understood. Three spellings
hide what is sent, and are resolved here:

- A TPU program has a reduce-scatter as a fusion of an all-reduce with the slice
  that is taken of it, and an asynchronous collective as two or more fusions
  that repeat it under one channel number.
- A CPU program has no reduce-scatter at all: the whole is reduced and a slice
  is taken afterwards. It is an all-reduce here, with `sliced` set.
- A loop stands in the text once. Its collectives are counted as often as it
  goes round.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

KINDS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective of a program.

  Attributes:
    kind: one of `KINDS`.
    name: of its instruction.
    shapes: (dtype, dimensions) of every array that a device is left with.
    group: devices of the first group that talks, by their place in the mesh
      counted row by row; of a permutation the first pair.
    times: how often a device takes part in a run of the program.
    known: False where a loop around it goes round an unknown number of times;
      that loop is counted as one round.
    sliced: of an all-reduce, for every array whether all that is read of it are
      slices: what other compilers spell as a reduce-scatter.
  """

  kind: str
  name: str
  shapes: tuple[tuple[str, tuple[int, ...]], ...]
  group: tuple[int, ...]
  times: int = 1
  known: bool = True
  sliced: tuple[bool, ...] = ()

  @property
  def result_bytes(self) -> int:
    """Bytes that one device is left with, of one time."""
    return (
      sum(math.prod(dims) * _bits(dtype) for dtype, dims in self.shapes) // 8
    )

  @property
  def group_size(self) -> int:
    """Devices that talk to one another."""
    return len(self.group)

  @property
  def moved_bytes(self) -> int:
    """Bytes that one device sends in all `times`, and receives as well.

    That of the ring algorithms, which send the least: of g devices, each
    sends (g - 1) / g of the whole array in an all-gather, a reduce-scatter and
    an all-to-all, and twice that in an all-reduce. A permutation sends it all.
    """
    size, g = self.result_bytes, max(self.group_size, 1)
    once = {
      'all-gather': size * (g - 1) / g,
      'all-reduce': 2 * size * (g - 1) / g,
      'reduce-scatter': size * (g - 1),
      'all-to-all': size * (g - 1) / g,
      'collective-permute': size,
    }[self.kind]
    return round(once * self.times)

  def axes(self, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ.

    Args:
      sizes: axis -> size of the mesh the program was compiled for, in order
        (`mesh.shape`).
    """
    shape = tuple(sizes.values())
    places = np.array(np.unravel_index(np.array(self.group), shape))
    differ = (places != places[:, :1]).any(1)
    return tuple(name for name, d in zip(sizes, differ) if d)


def read(text: str) -> list[Collective]:
  """The collectives of a program, in the order of its text.

  Args:
    text: of the optimised program, `compiled.as_text()`.

  Raises:
    ValueError: the text has no entry computation.
  """
  program = parse(text)
  found: list[Collective] = []
  program.visit(program.entry, 1, True, found)
  return found


def parse(text: str) -> '_Program':
  """The computations of a program, for others that read its text.

  Raises:
    ValueError: the text has no entry computation.
  """
  return _Program(text)


def moved(found: Iterable[Collective]) -> dict[str, int]:
  """kind -> bytes that one device sends, see `Collective.moved_bytes`."""
  total: dict[str, int] = collections.defaultdict(int)
  for collective in found:
    total[collective.kind] += collective.moved_bytes
  return dict(total)


# ------------------------------------------------------------- the text of XLA

# A computation begins at the margin; its name may have any of these letters.
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_NAMED = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_SHAPE = re.compile(r'([a-z]\w*)\[([\d,]*)\]')
_OPCODE = re.compile(r'\s*([a-z][\w\-]*)\(')
# What hands on an array as it is, in another form.
_SAME = ('bitcast', 'copy', 'reshape', 'transpose', 'convert')


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  rest: str
  root: bool

  def called(self, key):
    found = re.search(rf'\b{key}=%?([\w.\-]+)', self.rest)
    return found.group(1) if found else None


class _Program:
  """The computations of a module, name -> instructions by name."""

  def __init__(self, text):
    self.entry = None
    self.computations: dict[str, dict[str, _Instruction]] = {}
    count = [re.search(rf'\b{k}=(\d+)', text) for k in _COUNTS]
    self.devices = math.prod(int(c.group(1)) for c in count if c)
    here: dict[str, _Instruction] = {}
    for line in text.splitlines():
      if header := _HEADER.match(line):
        here = self.computations[header.group(2)] = {}
        self.entry = header.group(2) if header.group(1) else self.entry
      elif named := _NAMED.match(line):
        found = _instruction(*named.groups())
        if found is not None:
          here[found.name] = found
    if self.entry is None:
      raise ValueError('the text of a compiled program has a line ENTRY')

  def visit(self, name, times, known, found, seen=None):
    """Appends the collectives of a computation that runs `times` times."""
    # Fusions belong to the computation around them, and share its channels.
    fused, seen = seen is not None, set() if seen is None else seen
    for x in self.computations[name].values():
      kind = x.opcode.removesuffix('-start')
      if kind in KINDS:
        channel = re.search(r'\bchannel_id=(\d+)', x.rest)
        if channel is None or channel.group(1) not in seen:
          one = self._collective(x, kind, name, fused)
          found.append(dataclasses.replace(one, times=times, known=known))
        if channel is not None:
          seen.add(channel.group(1))
      elif x.opcode == 'while':
        count = self._rounds(x, name)
        inner = (times * (count or 1), known and count is not None)
        self.visit(x.called('body'), *inner, found)
        self.visit(x.called('condition'), *inner, found)
      elif x.opcode == 'fusion' or x.opcode == 'async-start':
        self.visit(x.called('calls'), times, known, found, seen)
      elif x.opcode == 'call':
        self.visit(x.called('to_apply'), times, known, found)
      elif x.opcode == 'conditional':
        self._branches(x, times, known, found)

  def _branches(self, x, times, known, found):
    """Of a conditional, the branch that sends most."""
    listed = re.search(r'branch_computations=\{([^}]*)\}', x.rest)
    names = re.findall(r'[\w.\-]+', listed.group(1)) if listed else []
    names = names or [x.called(f'{k}_computation') for k in ('true', 'false')]
    branches: list[list[Collective]] = []
    for name in names:
      branches.append([])
      self.visit(name, times, known, branches[-1])
    found += max(branches, key=lambda b: sum(c.moved_bytes for c in b))

  def _collective(self, x, kind, inside, fused):
    text, sliced = x.shape, ()
    if kind == 'all-reduce':
      sliced = self._sliced_each(x, inside)
      if fused and all(sliced):
        root = next(i for i in self.computations[inside].values() if i.root)
        kind, text, sliced = 'reduce-scatter', root.shape, ()
    elif x.opcode.endswith('-start'):
      # A pair of what goes in and what comes out.
      text = _parts(x.shape)[1]
    group = _group(x.rest, self.devices)
    return Collective(kind, x.name, _shapes(text), group, sliced=sliced)

  def _sliced_each(self, x, inside):
    """`_sliced` of every array of an all-reduce."""
    count = len(_shapes(x.shape))
    if count == 1:
      return (self._sliced(x.name, inside),)
    readers = [
      y for y in self.computations[inside].values() if x.name in y.operands
    ]
    if any(y.opcode != 'get-tuple-element' for y in readers):
      return (False,) * count
    parts: list[list[bool]] = [[] for _ in range(count)]
    for y in readers:
      index = int(y.rest.split('index=')[1].split(',')[0])
      parts[index].append(not y.root and self._sliced(y.name, inside))
    return tuple(bool(p) and all(p) for p in parts)

  def _sliced(self, name, inside):
    """Whether all that is read of an array are slices."""
    readers = [
      x for x in self.computations[inside].values() if name in x.operands
    ]
    return bool(readers) and all(self._takes(x, name, inside) for x in readers)

  def _takes(self, x, name, inside):
    if x.opcode == 'dynamic-slice':
      return x.operands[0] == name
    if x.opcode in _SAME or x.opcode in (
      'get-tuple-element',
      'all-reduce-done',
    ):
      return not x.root and self._sliced(x.name, inside)
    if x.opcode != 'fusion':
      return False
    body = x.called('calls')
    numbers = [i for i, o in enumerate(x.operands) if o == name]
    parameters = [
      p.name
      for p in self.computations[body].values()
      if p.opcode == 'parameter' and int(p.rest.split(')')[0]) in numbers
    ]
    return all(self._sliced(p, body) for p in parameters)

  # ------------------------------------------------------------------- loops

  def _rounds(self, loop, inside):
    """How often a loop goes round, None where that cannot be seen.

    Where the compiler does not say it: a condition `i < n` over a counter that
    grows by 1, which is how JAX writes scans.
    """
    said = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
    if said:
      return int(said.group(1))
    condition = self.computations[loop.called('condition')]
    root = next(x for x in condition.values() if x.root)
    if root.opcode != 'compare' or 'direction=LT' not in root.rest:
      return None
    counter = condition.get(root.operands[0])
    end = self._constant(root.operands[1], condition)
    if counter is None or counter.opcode != 'get-tuple-element' or end is None:
      return None
    index = int(counter.rest.split('index=')[1].split(',')[0])
    around = self.computations[inside]
    start = around.get(loop.operands[0])
    if start is None or start.opcode != 'tuple':
      return None
    first = self._constant(start.operands[index], around)
    return None if first is None else max(end - first, 0)

  def _constant(self, name, computation):
    x = computation.get(name)
    while x is not None and x.opcode in _SAME and x.operands:
      x = computation.get(x.operands[0])
    if x is None or x.opcode != 'constant':
      return None
    value = re.match(r'(-?\d+)\)', x.rest)
    return int(value.group(1)) if value else None


_COUNTS = ('num_partitions', 'replica_count')


def _instruction(root, name, text):
  text = re.sub(r'/\*.*?\*/', '', text)
  end = _closing(text, 0) + 1 if text.startswith('(') else text.find(' ')
  opcode = _OPCODE.match(text, end)
  if opcode is None:
    return None
  close = _closing(text, opcode.end() - 1)
  operands = text[opcode.end() : close]
  rest = text[close + 1 :]
  if opcode.group(1) in ('parameter', 'constant'):
    rest = operands + ')' + rest
  names = tuple(re.findall(r'%([\w.\-]+)', operands))
  return _Instruction(
    name, text[:end], opcode.group(1), names, rest, bool(root)
  )


def _closing(text, start):
  """Where the bracket that opens at `start` closes."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] in '([{') - (text[i] in ')]}')
    if not depth:
      return i
  raise ValueError(f'no closing bracket: {text[start : start + 80]}')


def _shapes(text):
  return tuple(
    (dtype, tuple(int(n) for n in dims.split(',') if n))
    for dtype, dims in _SHAPE.findall(text)
  )


def _parts(text):
  """The elements of a tuple's shape."""
  text, parts, start = text.strip()[1:-1], [], 0
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter in '([{') - (letter in ')]}')
    if letter == ',' and not depth:
      parts.append(text[start:i])
      start = i + 1
  return [*parts, text[start:]]


def _bits(dtype):
  if dtype == 'pred':
    return 8
  if dtype in ('token', 'opaque'):
    return 0
  # c64 has two halves of 32 bits; f8e4m3fn has 8.
  return int(re.findall(r'\d+', dtype)[0])


def _group(rest, devices):
  """Numbers of the devices of the first group."""
  pairs = re.search(r'source_target_pairs=\{\{([\d,]+)\}', rest)
  if pairs:
    return tuple(int(n) for n in pairs.group(1).split(','))
  text = rest[rest.find('replica_groups=') + len('replica_groups=') :]
  if listed := re.match(r'\{\{([\d,]*)\}', text):
    return tuple(int(n) for n in listed.group(1).split(','))
  if iota := re.match(r'\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', text):
    shape, sizes, order = (_numbers(x) for x in iota.groups())
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    if order:
      numbers = numbers.transpose(order)
    return tuple(int(n) for n in numbers.reshape(shape)[0])
  if mesh := re.match(r'mesh\[([^\]]*)\]\s*\{([^}]*)\}', text):
    return _mesh_group(*mesh.groups())
  return tuple(range(devices))


def _mesh_group(mesh, axes):
  """A group by names: mesh['a'=4,'b'=2] {'b'}, or {'a':(1)2} for a part of a."""
  sizes = {n: int(s) for n, s in re.findall(r"'(\w+)'=(\d+)", mesh)}
  numbers = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
  picked: list = [0] * len(sizes)
  for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes):
    part = slice(None)
    if size:
      step = sizes[name] // (int(before) * int(size))
      part = slice(0, step * int(size), step)
    picked[list(sizes).index(name)] = part
  return tuple(int(n) for n in numbers[tuple(picked)].ravel())


def _numbers(text):
  return tuple(int(n) for n in (text or '').split(',') if n)
