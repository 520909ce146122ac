"""Lists the collectives of a compiled program: kind, bytes, devices, count.

    for c in read(compiled.as_text()):
      print(c.kind, c.result_bytes, c.group_size, c.times)

Works for programs of the CPU and TPU compilers. Three things are resolved here:

- TPU programs spell a reduce-scatter as a fusion of an all-reduce and a slice,
  and an asynchronous collective as several fusions with one channel id.
- CPU programs have no reduce-scatter: they all-reduce the whole array and slice
  the result. Such an all-reduce has `sliced` set.
- The text has the body of a loop once. Its collectives are multiplied by the
  trip count.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

from arvision.plan import hlo

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
    name: name of its instruction.
    shapes: (dtype, dimensions) of every result array on one device.
    group: device numbers of the first group, in row-major order of the mesh;
      for a permutation the first source-target pair.
    times: executions per run of the program.
    known: False inside a loop with unknown trip count, which is counted once.
    sliced: for every array of an all-reduce, whether it is only read in slices
      (a reduce-scatter in other compilers).
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
    """Bytes of the result of one execution on one device."""
    return round(sum(hlo.Array(*shape).bytes for shape in self.shapes))

  @property
  def group_size(self) -> int:
    """Devices of a group."""
    return len(self.group)

  @property
  def moved_bytes(self) -> int:
    """Bytes that one device sends (and receives) in all executions.

    Assumes ring algorithms, which send the least. Each of g devices sends
    (g - 1) / g of the whole array in an all-gather, reduce-scatter or
    all-to-all, twice as much in an all-reduce, and the whole array in a
    permutation.
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
    """The mesh axes that the collective communicates along.

    Args:
      sizes: axis -> size of the mesh of the program, in order (`mesh.shape`).
    """
    shape = tuple(sizes.values())
    coords = np.array(np.unravel_index(np.array(self.group), shape))
    differ = (coords != coords[:, :1]).any(1)
    return tuple(name for name, d in zip(sizes, differ) if d)


def read(text: str) -> list[Collective]:
  """The collectives of a program, in the order of its text.

  Args:
    text: the optimized HLO, `compiled.as_text()`.

  Raises:
    ValueError: the text has no entry computation.
  """
  reader = _Reader(hlo.Program(text))
  found: list[Collective] = []
  reader.visit(reader.program.entry, 1, True, found)
  return found


def moved(found: Iterable[Collective]) -> dict[str, int]:
  """Bytes sent by one device, per kind; see `Collective.moved_bytes`."""
  total: dict[str, int] = collections.defaultdict(int)
  for collective in found:
    total[collective.kind] += collective.moved_bytes
  return dict(total)


class _Reader:
  """Walks the computations of a program and collects collectives."""

  def __init__(self, program):
    self.program: hlo.Program = program

  def visit(self, name, times, known, found, seen=None):
    """Appends the collectives of a computation that runs `times` times."""
    # Fusions share the channel ids of the computation that contains them.
    fused, seen = seen is not None, set() if seen is None else seen
    for x in self.program.computations[name].values():
      kind = x.opcode.removesuffix('-start')
      if kind in KINDS:
        channel = re.search(r'\bchannel_id=(\d+)', x.rest)
        if channel is None or channel.group(1) not in seen:
          one = self._collective(x, kind, name, fused)
          found.append(dataclasses.replace(one, times=times, known=known))
        if channel is not None:
          seen.add(channel.group(1))
      elif x.opcode == 'while':
        count = self.program.trip_count(x, name)
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
    """Appends the collectives of the branch that sends most."""
    branches: list[list[Collective]] = []
    for name in x.branches:
      branches.append([])
      self.visit(name, times, known, branches[-1])
    found += max(branches, key=lambda b: sum(c.moved_bytes for c in b))

  def _collective(self, x, kind, inside, fused):
    text, sliced = x.shape, ()
    if kind == 'all-reduce':
      sliced = self._sliced_each(x, inside)
      if fused and all(sliced):
        text = self.program.root(inside).shape
        kind, sliced = 'reduce-scatter', ()
    elif x.opcode.endswith('-start'):
      # (operands, results).
      text = hlo.parts(x.shape)[1]
    group = _group(x.rest, self.program.devices)
    shapes = tuple((a.dtype, a.dims) for a in hlo.arrays(text))
    return Collective(kind, x.name, shapes, group, sliced=sliced)

  def _sliced_each(self, x, inside):
    """`_sliced` of every array of an all-reduce."""
    count = len(hlo.arrays(x.shape))
    if count == 1:
      return (self._sliced(x.name, inside),)
    readers = self.program.readers(x.name, inside)
    if any(y.opcode != 'get-tuple-element' for y in readers):
      return (False,) * count
    parts: list[list[bool]] = [[] for _ in range(count)]
    for y in readers:
      parts[y.index].append(not y.root and self._sliced(y.name, inside))
    return tuple(bool(p) and all(p) for p in parts)

  def _sliced(self, name, inside):
    """Whether an array is only read in slices."""
    readers = self.program.readers(name, inside)
    return bool(readers) and all(self._slices(x, name, inside) for x in readers)

  def _slices(self, x, name, inside):
    """Whether instruction x reads only a slice of an array."""
    if x.opcode == 'dynamic-slice':
      return x.operands[0] == name
    if x.opcode in hlo.FORMS or x.opcode in (
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
      for p in self.program.computations[body].values()
      if p.opcode == 'parameter' and p.number in numbers
    ]
    return all(self._sliced(p, body) for p in parameters)


def _group(rest, devices):
  """Device numbers of the first group."""
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
  """The first group of mesh['a'=4,'b'=2] {'b'}; {'a':(1)2} is a part of a."""
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
