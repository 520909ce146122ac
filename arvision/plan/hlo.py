"""The text of a program that XLA has compiled, as instructions.

    program = Program(compiled.as_text())
    for x in program.computations[program.entry].values():
      print(x.name, x.opcode, size(x.shape))

The compilers for CPU and TPU write such texts. Shapes stay text: an array is
`bf16[8,128]{1,0:T(8,128)(2,1)S(1)}`, its layout behind its dimensions, and a tuple
is a list of such in brackets.
"""

import dataclasses
import math
import re

# A computation begins at the margin; its name may have any of these letters.
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_NAMED = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_ARRAY = re.compile(r'([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?')
_OPCODE = re.compile(r'\s*([a-z][\w\-]*)\(')
_COUNTS = ('num_partitions', 'replica_count')
# What hands on an array as it is, in another form.
FORMS = ('bitcast', 'copy', 'reshape', 'transpose', 'convert')


@dataclasses.dataclass(frozen=True)
class Array:
  """An array of a shape's text.

  Attributes:
    dtype: as XLA spells it, 'f32', 'bf16', 'pred'.
    dims: sizes.
    layout: text in braces, or ''.
  """

  dtype: str
  dims: tuple[int, ...]
  layout: str = ''

  @property
  def bytes(self) -> float:
    """Without padding; of s4 half a byte for each."""
    return math.prod(self.dims) * bits(self.dtype) / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """A line of a computation.

  Attributes:
    name: without '%'.
    shape: text of what it gives.
    opcode: 'fusion', 'all-gather-start', ...
    operands: names.
    rest: text behind the operands; of parameters and constants from them on.
    root: whether it is what the computation gives.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  rest: str
  root: bool

  def called(self, key: str) -> str | None:
    """Name of the computation that `key`= names, None if there is none."""
    found = re.search(rf'\b{key}=%?([\w.\-]+)', self.rest)
    return found.group(1) if found else None

  @property
  def branches(self) -> list[str]:
    """Names of the computations of a conditional."""
    listed = re.search(r'branch_computations=\{([^}]*)\}', self.rest)
    if listed:
      return re.findall(r'[\w.\-]+', listed.group(1))
    names = (self.called(f'{k}_computation') for k in ('true', 'false'))
    return [name for name in names if name]

  @property
  def number(self) -> int:
    """Place of a parameter among those of its computation."""
    return int(self.rest.split(')')[0])

  @property
  def index(self) -> int:
    """Place in the tuple that a get-tuple-element takes from."""
    return int(self.rest.split('index=')[1].split(',')[0])


class Program:
  """The computations of a program.

  Attributes:
    entry: name of the computation that is run.
    computations: name -> instructions by name, in the order of the text.
    devices: it was compiled for.
  """

  def __init__(self, text: str):
    """Args: text: of the optimised program, `compiled.as_text()`.

    Raises:
      ValueError: the text has no entry computation.
    """
    entry = None
    self.computations: dict[str, dict[str, Instruction]] = {}
    count = [re.search(rf'\b{k}=(\d+)', text) for k in _COUNTS]
    self.devices = math.prod(int(c.group(1)) for c in count if c)
    here: dict[str, Instruction] = {}
    for line in text.splitlines():
      if header := _HEADER.match(line):
        here = self.computations[header.group(2)] = {}
        entry = header.group(2) if header.group(1) else entry
      elif named := _NAMED.match(line):
        found = _instruction(*named.groups())
        if found is not None:
          here[found.name] = found
    if entry is None:
      raise ValueError('the text of a compiled program has a line ENTRY')
    self.entry: str = entry

  def root(self, name: str) -> Instruction:
    """What a computation gives."""
    return next(x for x in self.computations[name].values() if x.root)

  def readers(self, name: str, inside: str) -> list[Instruction]:
    """The instructions of a computation that `name` is an operand of."""
    return [x for x in self.computations[inside].values() if name in x.operands]

  def rounds(self, loop: Instruction, inside: str) -> int | None:
    """How often a loop goes round, None where that cannot be seen.

    Where the compiler does not say it: a condition `i < n` over a counter that
    grows by 1, which is how JAX writes scans.

    Args:
      loop: a 'while'.
      inside: name of the computation that it stands in.
    """
    said = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
    if said:
      return int(said.group(1))
    name = loop.called('condition') or ''
    condition, root = self.computations[name], self.root(name)
    if root.opcode != 'compare' or 'direction=LT' not in root.rest:
      return None
    counter = condition.get(root.operands[0])
    end = _constant(root.operands[1], condition)
    if counter is None or counter.opcode != 'get-tuple-element' or end is None:
      return None
    around = self.computations[inside]
    start = around.get(loop.operands[0])
    if start is None or start.opcode != 'tuple':
      return None
    first = _constant(start.operands[counter.index], around)
    return None if first is None else max(end - first, 0)


def arrays(shape: str) -> tuple[Array, ...]:
  """The arrays of a shape's text, nested tuples taken apart."""
  return tuple(
    Array(dtype, tuple(int(n) for n in dims.split(',') if n), layout)
    for dtype, dims, layout in _ARRAY.findall(shape)
  )


def size(shape: str) -> float:
  """Bytes of a shape's text."""
  return sum(array.bytes for array in arrays(shape))


def bits(dtype: str) -> int:
  """Of one number of a dtype as XLA spells it."""
  if dtype == 'pred':
    return 8
  if dtype in ('token', 'opaque'):
    return 0
  # c64 has two halves of 32 bits; f8e4m3fn has 8.
  return int(re.findall(r'\d+', dtype)[0])


def parts(shape: str) -> list[str]:
  """The elements of a tuple's shape; a shape that is no tuple is its one."""
  shape = shape.strip()
  if not shape.startswith('('):
    return [shape]
  text, found, start, depth = shape[1:-1], [], 0, 0
  for i, letter in enumerate(text):
    depth += (letter in '([{') - (letter in ')]}')
    if letter == ',' and not depth:
      found.append(text[start:i])
      start = i + 1
  return [*found, text[start:]]


def _constant(name, computation):
  x = computation.get(name)
  while x is not None and x.opcode in FORMS and x.operands:
    x = computation.get(x.operands[0])
  if x is None or x.opcode != 'constant':
    return None
  value = re.match(r'(-?\d+)\)', x.rest)
  return int(value.group(1)) if value else None


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
  return Instruction(name, text[:end], opcode.group(1), names, rest, bool(root))


def _closing(text, start):
  """Where the bracket that opens at `start` closes."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] in '([{') - (text[i] in ')]}')
    if not depth:
      return i
  raise ValueError(f'no closing bracket: {text[start : start + 80]}')
