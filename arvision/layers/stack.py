"""Layers stacked with `nn.scan`, and unrolled for decoding."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.attention import BlockInputs
from arvision.layers.cache import Cache
from arvision.layers.dense import KEPT, Dense
from arvision.parallel.constrain import RESIDUAL, constrain
from arvision.ranges import Below1, Few
from arvision.structs import Template

LAYERS = 'layers'

REMAT = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.save_only_these_names(KEPT),
}


class _Scanned(nn.Module):
  """A layer with the signature of `nn.scan`."""

  block: Template
  keep: bool = False

  @nn.compact
  def __call__(self, x, drop, skip, again, rest):
    x = _added(x, rest.again, again)
    if skip is not None:
      x = _skip_linear(x, name='skip')(jnp.concatenate([x, skip], -1))
    x, _ = self.block(name='block')(x, drop, rest)
    x = constrain(x, RESIDUAL)
    return x, x if self.keep else None


class Stack(nn.Module):
  """`depth` equal blocks with parameters stacked on a leading axis.

  Attributes:
    block: template of a block.
    depth: number of layers.
    drop_path: rates of the first and of the last layer, linear in between.
    remat: 'none', 'dots' (keep outputs of `Dense` layers) or 'full' (keep nothing).
    unroll: layers in one round of the scan. More compile longer; on a CPU a
      short stack, and any in bfloat16, trains faster with all of them, since a
      scan copies what the backward pass needs.
    keep: whether the outputs of all layers are returned.
    every: `BlockInputs.again` is added to x before every so many layers, but not
      before the first.
  """

  block: Template
  depth: Few
  drop_path: tuple[Below1, Below1] = (0.0, 0.0)
  remat: str = 'none'
  unroll: Few = 1
  keep: bool = False
  every: Few = 1

  @nn.compact
  def __call__(self, x, rest: BlockInputs, caches=None, skips=None):
    """x (b, n, d) -> (x, caches), see `Caches`.

    With `skips` (layers, b, n, d), layer i maps the concatenation of x and skips[i]
    back to the width first. With `keep` (caches, outputs of all layers, (layers, b,
    n, d)) are returned instead of caches.
    """
    x = constrain(x, RESIDUAL)
    unstacked = isinstance(self._params(), Layers)
    if unstacked or (caches is not None and not self.is_initializing()):
      return self._decode(x, rest, caches, skips)
    body = _Scanned
    if self.remat not in REMAT:
      raise ValueError(
        f"remat='{self.remat}': wanted one of {', '.join(REMAT)}"
      )
    if self.remat != 'none':
      body = nn.remat(body, prevent_cse=False, policy=REMAT[self.remat])
    drop = None
    if any(self.drop_path) and rest.train:
      drop = jnp.linspace(*self.drop_path, self.depth)
    again = None
    if rest.again is not None:
      again = self._again(jnp.arange(self.depth))
    layers = nn.scan(
      body,
      variable_axes={'params': 0, 'intermediates': 0},
      split_rngs={'params': True, 'dropout': True},
      in_axes=(
        0 if drop is not None else nn.broadcast,
        0 if skips is not None else nn.broadcast,
        0 if again is not None else nn.broadcast,
        nn.broadcast,
      ),
      length=self.depth,
      unroll=self.unroll,
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(self.block, self.keep, name=LAYERS)
    x, kept = layers(x, drop, skips, again, rest)
    return x, (caches, kept) if self.keep else caches

  def empty_cache(self, batch: int, slots: int, width: int) -> 'Caches | None':
    """A cache for every layer, see `Attention.empty_cache`.

    None where the layers keep nothing.
    """
    block = self.block(parent=None)
    layers = range(self.depth)
    caches = tuple(block.empty_cache(batch, slots, width) for _ in layers)
    return caches if jax.tree.leaves(caches) else None

  def _again(self, i):
    """Whether something is added to x before layer i."""
    return (i > 0) & (i % self.every == 0)

  def _params(self):
    return self.variables.get('params', {}).get(LAYERS)

  def _decode(self, x, rest, caches, skips):
    """While sampling: layers one by one, or scanned where that is cheap."""
    params = self._params()
    if not isinstance(params, Layers):
      params = Layers.of(params)
    block = self.block(parent=None)
    guided = _numbers(rest.guided_layers, self.depth)

    def layer(i, x, params, cache):
      x = _added(x, rest.again, self._again(i))
      if skips is not None:
        both = jnp.concatenate([x, skips[i]], -1)
        linear = _skip_linear(x, parent=None)
        x = linear.apply({'params': params['skip']}, both)
      variables = {'params': params['block']}
      x, cache = block.apply(variables, x, None, rest, cache)
      return _guided(x, rest.guidance, i, guided), cache

    in_loop = isinstance(rest.start, jax.core.Tracer)
    plain = skips is None and not self.keep
    if plain and not in_loop and x.shape[0] * x.shape[1] >= _SCANNED_ROWS:
      return _scan_layers(layer, x, params.stacked, caches)
    new, outputs = [], []
    for i, own in enumerate(params.single):
      if isinstance(caches, Cache):
        x, cache = layer(i, x, own, caches.at_layer(i))
        caches = caches.put_layer(i, cache)
      else:
        x, cache = layer(i, x, own, None if caches is None else caches[i])
        new.append(cache)
      outputs.append(x)
    if not isinstance(caches, Cache) and caches is not None:
      caches = tuple(new)
    return x, (caches, jnp.stack(outputs)) if self.keep else caches


# A scan over layers copies the weights and the cache of every layer, which
# takes about as long as multiplying 100 rows by them (VAR-d16 at batch 4 on two
# cores of an EPYC: 18.1 s with 8 of 10 steps scanned, 16.0 s with none). From
# here on they are a fifth of the work at most, and one compiled body serves all
# layers.
_SCANNED_ROWS = 512

# What a stack of layers holds: a `Cache` per layer; of those that join, from the
# first scan on one of all layers.
Caches = tuple[Cache, ...] | Cache


def _skip_linear(x, **fields):
  """The map of x (b, n, d) and a skip, side by side, to the width."""
  return Dense((x.shape[-1],), ('mlp', 'embed'), dtype=x.dtype, **fields)


def _added(x, what, when):
  """x (b, n, d), plus `what` if `when`, () bool."""
  if what is None:
    return x
  return x + jnp.where(when, what, 0).astype(x.dtype)


def _numbers(guided, depth):
  """Numbers of layers that are counted from the last, -1."""
  for n in guided:
    if not -depth <= n < 0:
      raise ValueError(
        f'config.sampler.guided_layers={guided}: wanted -{depth} to -1, for '
        f'config.backbone.depth={depth} layers'
      )
  return tuple(depth + n for n in guided)


def _guided(x, scale, i, guided):
  """The output of layer i, both halves of which become the guided one.

  A scale of 1 is no guidance: it leaves the halves as they are.
  """
  if not guided or isinstance(i, int) and i not in guided:
    return x
  cond, null = jnp.split(x, 2)
  both = (null + scale * (cond - null)).astype(x.dtype)
  y = jnp.concatenate([both, both])
  here = jnp.isin(i, jnp.array(guided)) & (scale != 1)
  return jnp.where(here, y, x)


def _scan_layers(layer, x, params, caches):
  numbers = jnp.arange(len(jax.tree.leaves(params)[0]))
  if caches is None:
    alone = lambda x, own: layer(own[0], x, own[1], None)
    return jax.lax.scan(alone, x, (numbers, params))
  if not isinstance(caches, Cache):
    caches = jax.tree.map(lambda *c: jnp.stack(c), *caches)

  def advance(carry, own):
    x, caches = carry
    i, params = own
    x, cache = layer(i, x, params, caches.at_layer(i))
    return (x, caches.put_layer(i, cache)), None

  x, caches = jax.lax.scan(advance, (x, caches), (numbers, params))[0]
  if not caches.joins:
    caches = tuple(_take(caches, i) for i in range(len(numbers)))
  return x, caches


@flax.struct.dataclass
class Layers:
  """The parameters of a stack, stacked and layer by layer.

  Under jit the form that is not used costs nothing.

  Attributes:
    stacked: leading axis = layers.
    single: one tree per layer.
  """

  stacked: Any
  single: tuple[Any, ...]

  @classmethod
  def of(cls, stacked: Any) -> 'Layers':
    depth = np.shape(jax.tree.leaves(stacked)[0])[0]
    return cls(stacked, tuple(_take(stacked, i) for i in range(depth)))


def _take(tree, i):
  return jax.tree.map(lambda p: p[i], tree)


def _unstacked(value):
  return value if isinstance(value, Layers) else Layers.of(value)


def unstack(params: Any) -> Any:
  """Parameters with every stack cut into layers, see `Layers`.

  This is done once, before a decoding loop: a loop that slices stacked weights
  copies all of them at every step. `Stack` decodes with either form.
  """
  if not isinstance(params, dict):
    return params
  return {
    name: _unstacked(value) if name == LAYERS else unstack(value)
    for name, value in params.items()
  }
