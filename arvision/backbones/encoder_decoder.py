"""Bodies of two halves, each with positions of its own (xAR, FlowAR, MAR)."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arvision.backbones.base import Size
from arvision.kernels.attention import AttentionMask
from arvision.layers.dense import Dense
from arvision.layers.entity_adaln import EntityModulation
from arvision.layers.param import normal, param
from arvision.layouts import masks
from arvision.layouts.base import take
from arvision.ranges import AtLeast0, Few, Width
from arvision.structs import Slots, Template


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
  """The stack of the backbone, a norm and a linear map, and a second stack.

  Both halves have the same mask and condition. The official code calls them
  encoder and decoder.

  Source: OliverRensu/xAR (arXiv 2502.20388); LTH14/mar.

  Attributes:
    depth: layers of the second half; `config.backbone.depth` are those of the
      first.
    width, heads, mlp: width, heads and template of the MLP of the second half;
      None: those of the first.
    out_position: whether positions are added to what comes out (FlowAR, MAR).
    std: standard deviation of the map between the halves; None: Xavier's.
  """

  depth: Few = 1
  width: Width | None = None
  heads: Few | None = None
  mlp: Template | None = None
  out_position: bool = False
  std: AtLeast0 | None = None

  def sizes(self, size):
    second = Size(
      self.depth, self.width or size.width, self.heads or size.heads
    )
    return size, second

  def __call__(self, run, x, caches):
    first, second = caches
    x, first = run.stack('stack', x, first)
    x, second = self.decode(run, self.between(run, x), second)
    if self.out_position:
      x = x + run.position('position_out', x.shape[-1])
    return x[:, :, None], (first, second)

  def between(self, run, x):
    """From what the first half gives to the width of the second, float32."""
    linear = Dense(
      (self.sizes(run.size)[1].width,),
      ('embed', 'mlp'),
      kernel_init=normal(self.std),
      name='between',
    )
    return linear(run.norm('norm_first', x))

  def decode(self, run, x, cache=None):
    """The second half, positions and last norm included; and its cache."""
    size, block = self.sizes(run.size)[1], run.net.block
    if self.mlp is not None:
      block = functools.partial(block, mlp=self.mlp)
    x = x + run.position('position_second', size.width)
    x = x.astype(run.net.dtype)
    x, cache = run.stack('stack_second', x, cache, size, block=block)
    return run.norm('norm', x), cache


@dataclasses.dataclass(frozen=True)
class Masked(EncoderDecoder):
  """The first half sees visible slots alone, the second all of them (MAR).

  The first half is given the slots that are not masked, the prefix first, filled
  up to `Slots.max_unmasked` with slots that nobody sees. After it they return to
  their places, among copies of one vector that stands for masked tokens. Every
  slot sees all others: the layout is one entity. A cache holds one pass over all
  slots, for passes over some of them again.

  Source: arXiv 2406.11838; LTH14/mar, models/mar.py.

  Attributes:
    masked_std: standard deviation at the start of the vector for masked tokens
      and of the positions that are added at the end (`out_position`).
  """

  masked_std: AtLeast0 = 0.02

  def __call__(self, run, x, caches):
    slots, layout = run.slots, run.layout
    if slots.masked is None or self.entities(run) != 1:
      raise ValueError(
        f'{type(self).__name__} fills masked tokens of one entity, got no mask or '
        f'{layout.steps} steps; set config.layout.type=layouts.grid.whole and '
        'config.sampler.type=samplers.random_order.RandomOrder'
      )
    if slots.index.ndim > 1:
      return self._again(run, x, caches)
    first, second = caches
    seen, known = visible(slots)
    every = masks.same(np.zeros(known.shape[1], np.int32))
    x = jnp.take_along_axis(x, seen[..., None], 1)
    encoder, decoder = self.halves(run)
    x, first = encoder.with_rows(0, known.shape[1]).stack(
      'stack', x, first, mask=AttentionMask(every, known)
    )
    if first is not None:
      first = _Encoded(first, seen, known)
    x = self.between(run, x)
    hidden = self._masked_vector(run, x)
    # A gather by the rank among visible slots, and no scatter to their places: it
    # stays within an example, so that devices need no slots of one another.
    masked = jnp.asarray(slots.masked)
    rank = jnp.cumsum(~masked, axis=1) - 1
    kept = ~masked & (rank < seen.shape[1])
    x = jnp.take_along_axis(x, jnp.where(kept, rank, 0)[..., None], 1)
    x = jnp.where(kept[..., None], x, hidden)
    x, second = self.decode(decoder, x, second)
    if self.out_position:
      token = layout.token[slots.index]
      there = np.flatnonzero(token >= 0)
      own = self._param(run, 'position_out', (layout.tokens, x.shape[-1]))
      x = x.at[:, there].add(own[token[there]])
    return x[:, :, None], (first, second)

  def _again(self, run, x, caches):
    """Some slots against the cache of a pass over all of them."""
    slots, layout = run.slots, run.layout
    (cache, seen, known), second = caches
    entering = slots.valid & ~jnp.asarray(slots.masked)
    same = (slots.index[..., None] == seen[:, None]) & slots.valid[..., None]
    keys = jnp.concatenate([known & ~same.any(1), entering], 1)
    encoder = run.with_rows(seen.shape[1], keys.shape[1])
    x, _ = encoder.stack('stack', x, cache, mask=keys[:, None, None])
    x = self.between(run, x)
    x = jnp.where(entering[..., None], x, self._masked_vector(run, x))
    x, second = self.decode(run, x, second)
    if self.out_position:
      own = self._param(run, 'position_out', (layout.tokens, x.shape[-1]))
      token = take(layout.target_position, slots.index)
      x = x + jnp.where((token >= 0)[..., None], own[token], 0)
    return x[:, :, None], (caches[0], second)

  def entities(self, run):
    """Number of entities that a pass goes over."""
    return run.layout.steps

  def halves(self, run):
    """The passes that make the stacks of both halves."""
    return run, run

  def _masked_vector(self, run, x):
    """(1 or n, d) vectors instead of masked tokens."""
    # Of two axes, since it decays as published.
    return self._param(run, 'hole', (1, x.shape[-1]))

  def _param(self, run, name, shape):
    names = (None,) * (len(shape) - 1) + ('embed',)
    init = normal(self.masked_std)
    return jnp.asarray(param(run.net, name, init, names, shape))


@dataclasses.dataclass(frozen=True)
class MaskedStages(Masked):
  """The same for one of several stages, which modulates both halves (Hi-MAR).

  Every stack has a vector for each stage, from which `EntityAdaLN` makes the scales
  and gates of its blocks. Every token has a vector of its own for being masked,
  another one in each stage.

  Source: arXiv 2505.20288; HiDream-ai/himar, models/himar.py.
  """

  def entities(self, run):
    return len({*run.layout.entity[run.slots.index].tolist()})

  def halves(self, run):
    stage = run.layout.entity[run.slots.index[:1]]

    def modulated(name, size):
      make = EntityModulation(size.width, run.layout.steps, name=name)
      inputs = run.inputs.replace(modulation=make(), rows=stage)
      return dataclasses.replace(run, inputs=inputs)

    first, second = self.sizes(run.size)
    return modulated('stage', first), modulated('stage_second', second)

  def _masked_vector(self, run, x):
    layout, index = run.layout, run.slots.index
    shape = layout.steps * layout.tokens, x.shape[-1]
    row = layout.entity[index] * layout.tokens + layout.token[index]
    # Prefix slots are never masked.
    return self._param(run, 'hole', shape)[row.clip(0)]


class _Encoded(NamedTuple):
  """The cache of the first half, whose rows are slots that were not masked.

  Attributes:
    cache: of its stack.
    seen, known: see `visible`.
  """

  cache: Any
  seen: jax.Array
  known: jax.Array


def visible(slots: Slots) -> tuple[jax.Array, jax.Array]:
  """The slots that are not masked, in order, filled up with masked ones.

  Args:
    slots: those that see one another, with `masked` (b, n).

  Returns:
    (b, visible) int32 places, and (b, visible) bool which are not masked.
  """
  masked = jnp.asarray(slots.masked)
  places = jnp.argsort(masked, axis=1, stable=True)[:, : slots.max_unmasked]
  return places, ~jnp.take_along_axis(masked, places, 1)
