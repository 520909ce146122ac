"""Estimates the HBM traffic of a compiled TPU program.

Every instruction outside of a fusion reads its operands and writes its results
once per iteration of the loops around it. Arrays in on-chip memory, `S(1)` in
the text, cost nothing. If a large array is sliced or updated in part, only that
part counts.
"""

import dataclasses
import re

from arvision.plan import hlo

# Opcodes that move no data.
_FREE = (
  'parameter',
  'constant',
  'tuple',
  'get-tuple-element',
  'bitcast',
  'after-all',
  'partition-id',
  'iota',
)
_ON_CHIP = re.compile(r'S\([1-9]')


def hbm_bytes(text: str) -> int:
  """Bytes that one device reads and writes in one run of a program.

  Args:
    text: the optimized HLO, `compiled.as_text()`.
  """
  program = hlo.Program(text)
  return round(_computation(program, program.entry, 1))


def _computation(program, name, times) -> float:
  inside, total = program.computations[name], 0.0
  for x in inside.values():
    if x.opcode == 'while':
      rounds = times * (program.trip_count(x, name) or 1)
      total += _computation(program, x.called('body'), rounds)
    elif x.opcode == 'call':
      total += _computation(program, x.called('to_apply'), times)
    elif x.opcode == 'conditional':
      total += max(_computation(program, b, times) for b in x.branches)
    elif x.opcode not in _FREE and not x.opcode.endswith('-done'):
      total += times * _instruction(program, x, inside)
  return total


def _instruction(program, x, inside) -> float:
  if x.opcode == 'fusion':
    return _fusion(program, x, inside)
  if x.opcode in ('dynamic-slice', 'slice', 'gather'):
    return 2 * size(x.shape)
  if x.opcode == 'dynamic-update-slice':
    return 2 * _size_of(x.operands[1], inside)
  if x.opcode.endswith('-start'):
    # The result is a tuple that lists the operands again.
    first = hlo.parts(x.shape)[0]
    return sum(_size_of(o, inside) for o in x.operands) + size(first)
  return size(x.shape) + sum(_size_of(o, inside) for o in x.operands)


def _fusion(program, x, inside) -> float:
  body = _flat(program, x.called('calls'))
  total, updated = 0.0, set()
  for out in _results(body):
    if out.opcode == 'parameter' or out.opcode == 'custom-call':
      continue  # passed through: part of an asynchronous collective
    if out.opcode == 'dynamic-update-slice':
      # The shape of a fused update does not state its memory space.
      total += _plain(out.operands[1], body)
      updated.add(_source(out.operands[0], body))
    else:
      total += size(out.shape)
  for number, operand in enumerate(x.operands):
    parameter = _parameter(body, number)
    if parameter is None or parameter in updated:
      continue
    whole = _size_of(operand, inside)
    total += min(whole, _read(parameter, body, whole))
  return total


def _flat(program, name):
  """The instructions of a fusion with nested fusions inlined, by name.

  Stacked weights are often sliced in a fusion inside the one that multiplies:
  only the slice is read.
  """
  found: dict[str, hlo.Instruction] = {}
  same: dict[str, str] = {}  # inlined instruction -> its replacement
  for x in program.computations[name].values():
    operands = tuple(same.get(o, o) for o in x.operands)
    if x.opcode == 'get-tuple-element' and operands[0] in found:
      of = found[operands[0]]
      if of.opcode == 'tuple':
        same[x.name] = of.operands[x.index]
        continue
    if x.opcode != 'fusion':
      found[x.name] = dataclasses.replace(x, operands=operands)
      continue
    outer: dict[str, str] = {}
    for y in _flat(program, x.called('calls')).values():
      if y.opcode == 'parameter':
        outer[y.name] = operands[y.number]
      else:
        outer[y.name] = f'{x.name}/{y.name}'
        found[outer[y.name]] = dataclasses.replace(
          y,
          name=outer[y.name],
          operands=tuple(outer.get(o, o) for o in y.operands),
          root=x.root and y.root,
        )
      if y.root:
        same[x.name] = outer[y.name]
  return found


def _results(body):
  root = next(x for x in body.values() if x.root)
  names = root.operands if root.opcode == 'tuple' else (root.name,)
  return [body[_through(name, body)] for name in names if name in body]


def _through(name, body):
  """The instruction under any bitcasts."""
  while body[name].opcode == 'bitcast' and body[name].operands:
    name = body[name].operands[0]
  return name


def _source(name, body):
  while body[name].opcode in hlo.FORMS and body[name].operands:
    name = body[name].operands[0]
  return name


def _parameter(body, number):
  for x in body.values():
    if x.opcode == 'parameter' and x.number == number:
      return x.name
  return None


def _read(name, body, whole):
  """Bytes that are read of a parameter: its slices, or all of it."""
  total = 0.0
  for x in body.values():
    if name not in x.operands:
      continue
    if x.opcode in ('dynamic-slice', 'slice', 'gather'):
      total += hlo.size(x.shape)
    elif x.opcode == 'bitcast' and not x.root:
      total += _read(x.name, body, whole)
    else:
      return whole
  return total


def _size_of(name, inside):
  found = inside.get(name)
  return size(found.shape) if found is not None else 0


def _plain(name, inside):
  found = inside.get(name)
  return hlo.size(found.shape) if found is not None else 0


def size(shape: str) -> float:
  """Bytes in HBM of a shape, 'bf16[8,128]{1,0:T(8,128)(2,1)S(1)}'."""
  return sum(
    array.bytes
    for array in hlo.arrays(shape)
    if not _ON_CHIP.search(array.layout)
  )
