"""Parses the HLO text of a compiled program.

    program = Program(compiled.as_text())
    for x in program.computations[program.entry].values():
      print(x.name, x.opcode, size(x.shape))

Works for programs of the CPU and TPU compilers. Shapes stay text. An array is
`bf16[8,128]{1,0:T(8,128)(2,1)S(1)}`: dtype, dimensions, layout. A tuple is a
list of arrays in parentheses.
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
# Opcodes that change only the form of an array, not its values.
FORMS = ('bitcast', 'copy', 'reshape', 'transpose', 'convert')


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of a shape.

  Attributes:
    dtype: as XLA spells it, 'f32', 'bf16', 'pred'.
    dims: size of every axis.
    layout: text in braces, or ''.
  """

  dtype: str
  dims: tuple[int, ...]
  layout: str = ''

  @property
  def bytes(self) -> float:
    """Size without padding; an element of s4 takes half a byte."""
    return math.prod(self.dims) * bits(self.dtype) / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction of a computation.

  Attributes:
    name: without '%'.
    shape: text of the result's shape.
    opcode: 'fusion', 'all-gather-start', ...
    operands: names of the operands.
    rest: text after the operands. For parameters and constants it starts with
      the number or value in parentheses.
    root: whether its result is the result of the computation.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  rest: str
  root: bool

  def called(self, key: str) -> str | None:
    """Name of the computation in the attribute `key`, None without one."""
    found = re.search(rf'\b{key}=%?([\w.\-]+)', self.rest)
    return found.group(1) if found else None

  @property
  def branches(self) -> list[str]:
    """Names of the branch computations of a conditional."""
    listed = re.search(r'branch_computations=\{([^}]*)\}', self.rest)
    if listed:
      return re.findall(r'[\w.\-]+', listed.group(1))
    names = (self.called(f'{k}_computation') for k in ('true', 'false'))
    return [name for name in names if name]

  @property
  def number(self) -> int:
    """Number of a parameter of a computation."""
    return int(self.rest.split(')')[0])

  @property
  def index(self) -> int:
    """Index of a get-tuple-element."""
    return int(self.rest.split('index=')[1].split(',')[0])


class Program:
  """A compiled program.

  Attributes:
    entry: name of the entry computation.
    computations: name -> instructions by name, in the order of the text.
    devices: number of devices that the program was compiled for.
  """

  def __init__(self, text: str):
    """Parses a program.

    Args:
      text: the optimized HLO, `compiled.as_text()`.

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
      raise ValueError('no ENTRY line: wanted the text of a compiled program')
    self.entry: str = entry

  def root(self, name: str) -> Instruction:
    """The root instruction of a computation."""
    return next(x for x in self.computations[name].values() if x.root)

  def readers(self, name: str, inside: str) -> list[Instruction]:
    """The instructions of the computation `inside` with `name` as operand."""
    return [x for x in self.computations[inside].values() if name in x.operands]

  def trip_count(self, loop: Instruction, inside: str) -> int | None:
    """Number of iterations of a loop, None if it cannot be read.

    Without a `known_trip_count` the condition must be `i < n` with a counter
    that grows by 1: this is how JAX lowers scans.

    Args:
      loop: a 'while' instruction.
      inside: name of the computation that contains it.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
    if known:
      return int(known.group(1))
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
  """The arrays of a shape; nested tuples are flattened."""
  return tuple(
    Array(dtype, tuple(int(n) for n in dims.split(',') if n), layout)
    for dtype, dims, layout in _ARRAY.findall(shape)
  )


def size(shape: str) -> float:
  """Bytes of all arrays of a shape, without padding."""
  return sum(array.bytes for array in arrays(shape))


def bits(dtype: str) -> int:
  """Bits of one element of a dtype, in XLA's spelling."""
  if dtype == 'pred':
    return 8
  if dtype in ('token', 'opaque'):
    return 0
  # The first number in the name: 64 of c64, 8 of f8e4m3fn.
  return int(re.findall(r'\d+', dtype)[0])


def parts(shape: str) -> list[str]:
  """The shapes of a tuple's elements; an array is a tuple of one."""
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
  """Index of the bracket that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] in '([{') - (text[i] in ')]}')
    if not depth:
      return i
  raise ValueError(f'no closing bracket: {text[start : start + 80]}')
