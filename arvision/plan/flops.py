"""FLOPs of a traced function, counted layer by layer from its equations.

The compiler's own count has the body of a scan once; this one has it as often
as it runs. Only products are counted, matrix products and convolutions: they
are what the peak of a chip is a peak of.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

from jax.interpreters import partial_eval

# How JAX marks, in the path of an equation, what a backward pass computes again.
_AGAIN = 'rematted_computation'


@dataclasses.dataclass
class Count:
  """FLOPs of one layer, over all its repetitions.

  Attributes:
    useful: of the forward pass and its derivatives.
    again: of what is computed a second time to save memory.
  """

  useful: float = 0.0
  again: float = 0.0


@dataclasses.dataclass(frozen=True)
class Flops:
  """FLOPs of a program over the whole batch.

  Attributes:
    layers: path of a module -> its count.
    unknown: loops that run an unknown number of times, counted as one round.
  """

  layers: dict[str, Count]
  unknown: int = 0

  @property
  def useful(self) -> float:
    return sum(c.useful for c in self.layers.values())

  @property
  def again(self) -> float:
    return sum(c.again for c in self.layers.values())

  @property
  def total(self) -> float:
    return self.useful + self.again


def count(jaxpr: Any) -> Flops:
  """The FLOPs of a closed jaxpr, `jax.make_jaxpr(f)(...)`.

  Without those of values that nothing uses, which the compiler drops too.
  """
  outputs = [True] * len(jaxpr.jaxpr.outvars)
  used, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, outputs)
  layers: dict[str, Count] = {}
  loops: list[Any] = []
  for path, flops in _walk(used, '', 1.0, loops):
    layer = layers.setdefault(name(path), Count())
    if _AGAIN in path:
      layer.again += flops
    else:
      layer.useful += flops
  return Flops(layers, len(loops))


def name(path: str) -> str:
  """The module of an equation's path.

  'jvp(ARModel.losses)/backbone/stack/layers/block/mlp/fc1' ->
  'backbone/stack/block/mlp/fc1'.
  """
  found: list[str] = []
  for part in path.split('/'):
    plain = part.split('.')[0]
    skip = '(' in part or '->' in part or plain in (_AGAIN, 'layers', 'ARModel')
    if plain and not skip and plain not in found:
      found.append(plain)
  return '/'.join(found) or 'other'


def _walk(jaxpr, path, times, loops) -> Iterator[tuple[str, float]]:
  for eqn in jaxpr.eqns:
    here = f'{path}/{eqn.source_info.name_stack}'
    kind = eqn.primitive.name
    if kind == 'dot_general':
      yield here, times * _dot(eqn)
    elif kind == 'conv_general_dilated':
      yield here, times * _conv(eqn)
    elif kind == 'cond':
      branches = [
        list(_walk(b.jaxpr, here, times, loops)) for b in eqn.params['branches']
      ]
      yield from max(branches, key=lambda b: sum(f for _, f in b))
    elif kind == 'pallas_call':
      yield here, times * _kernel(eqn, loops)
    else:
      yield from _inside(eqn, here, times, loops)


def _inside(eqn, here, times, loops):
  """The equations of the functions that an equation calls."""
  kind, params = eqn.primitive.name, eqn.params
  if kind == 'scan':
    times *= params['length']
  elif kind == 'while':
    rounds = _rounds(eqn)
    if rounds is None:
      loops.append(eqn)
    times *= rounds or 1
  elif kind == 'shard_map':
    # Inside are the shapes of one device.
    sizes = params['mesh'].shape
    times *= math.prod(sizes[axis] for axis in params['newly_manual_axes'])
  for inner in _jaxprs(params.values()):
    yield from _walk(inner, here, times, loops)


def _jaxprs(values: Iterable[Any]) -> Iterator[Any]:
  for value in values:
    for x in value if isinstance(value, (list, tuple)) else (value,):
      x = getattr(x, 'jaxpr', x)
      if hasattr(x, 'eqns'):
        yield x


def _rounds(eqn) -> int | None:
  """Of `fori_loop` between two numbers that are known."""
  from jax.extend.core import Literal

  params = eqn.params
  condition = params['cond_jaxpr'].jaxpr
  if len(condition.eqns) != 1 or condition.eqns[0].primitive.name != 'lt':
    return None
  carried = eqn.invars[params['cond_nconsts'] + params['body_nconsts'] :]
  given = [*eqn.invars[: params['cond_nconsts']], *carried]
  ends = []
  for var in condition.eqns[0].invars:
    if not isinstance(var, Literal):
      var = given[condition.invars.index(var)]
    if not isinstance(var, Literal):
      return None
    ends.append(int(var.val))
  return max(ends[1] - ends[0], 0)


def _dot(eqn) -> float:
  (contracted, _), _ = eqn.params['dimension_numbers']
  left = eqn.invars[0].aval.shape
  return (
    2.0
    * math.prod(eqn.outvars[0].aval.shape)
    * math.prod(left[i] for i in contracted)
  )


def _conv(eqn) -> float:
  kernel = eqn.invars[1].aval.shape
  outputs = kernel[eqn.params['dimension_numbers'].rhs_spec[0]]
  # Rows of zeros between those of the input are not multiplied.
  holes = math.prod(eqn.params['lhs_dilation'])
  out = math.prod(eqn.outvars[0].aval.shape)
  return 2.0 * out * math.prod(kernel) / outputs / holes


def _kernel(eqn, loops) -> float:
  """A Pallas kernel: what it says of itself, or its body at every place."""
  said = eqn.params.get('cost_estimate')
  if said is not None:
    return float(said.flops)
  grid = math.prod(eqn.params['grid_mapping'].grid)
  body = _walk(eqn.params['jaxpr'], '', 1.0, loops)
  return grid * sum(flops for _, flops in body)
