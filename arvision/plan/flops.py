"""Counts the FLOPs of a traced function per layer, from its jaxpr.

The compiler's own count has the body of a scan once; this one multiplies it by
the number of iterations. It counts matrix products and convolutions only, as
the published peak of a chip does.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

from jax.interpreters import partial_eval

# JAX puts this into the name stack of rematerialized equations.
_REMAT = 'rematted_computation'


@dataclasses.dataclass
class Count:
  """FLOPs of one layer, over all iterations.

  Attributes:
    useful: forward and backward pass.
    remat: rematerialization in the backward pass.
  """

  useful: float = 0.0
  remat: float = 0.0


@dataclasses.dataclass(frozen=True)
class Flops:
  """FLOPs of a program for the whole batch.

  Attributes:
    layers: module path -> its count.
    unknown: number of loops with unknown trip count; each is counted once.
  """

  layers: dict[str, Count]
  unknown: int = 0

  @property
  def useful(self) -> float:
    return sum(c.useful for c in self.layers.values())

  @property
  def total(self) -> float:
    return self.useful + sum(c.remat for c in self.layers.values())


def count(jaxpr: Any) -> Flops:
  """The FLOPs of a closed jaxpr, `jax.make_jaxpr(f)(...)`, without dead code."""
  outputs = [True] * len(jaxpr.jaxpr.outvars)
  used, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, outputs)
  layers: dict[str, Count] = {}
  loops: list[Any] = []
  for path, flops in _walk(used, '', 1.0, loops):
    layer = layers.setdefault(name(path), Count())
    if _REMAT in path:
      layer.remat += flops
    else:
      layer.useful += flops
  return Flops(layers, len(loops))


def name(path: str) -> str:
  """The module path in the name stack of an equation.

  'jvp(ARModel.losses)/backbone/stack/layers/block/mlp/fc1' ->
  'backbone/stack/block/mlp/fc1'.
  """
  found: list[str] = []
  for part in path.split('/'):
    plain = part.split('.')[0]
    skip = '(' in part or '->' in part or plain in (_REMAT, 'layers', 'ARModel')
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
      yield from _called(eqn, here, times, loops)


def _called(eqn, here, times, loops):
  """Walks the jaxprs in the parameters of an equation."""
  kind, params = eqn.primitive.name, eqn.params
  if kind == 'scan':
    times *= params['length']
  elif kind == 'while':
    rounds = _trip_count(eqn)
    if rounds is None:
      loops.append(eqn)
    times *= rounds or 1
  elif kind == 'shard_map':
    # The inner shapes are those of one device.
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


def _trip_count(eqn) -> int | None:
  """Iterations of a `fori_loop` with static bounds, None for other loops."""
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
  # Zeros that dilation puts between inputs are not multiplied.
  dilation = math.prod(eqn.params['lhs_dilation'])
  out = math.prod(eqn.outvars[0].aval.shape)
  return 2.0 * out * math.prod(kernel) / outputs / dilation


def _kernel(eqn, loops) -> float:
  """A Pallas kernel: its own cost estimate, or its body times the grid."""
  estimate = eqn.params.get('cost_estimate')
  if estimate is not None:
    return float(estimate.flops)
  grid = math.prod(eqn.params['grid_mapping'].grid)
  body = _walk(eqn.params['jaxpr'], '', 1.0, loops)
  return grid * sum(flops for _, flops in body)
