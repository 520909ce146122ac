"""An encoder that is given the visible tokens alone, and a decoder (MAR)."""

import jax
import jax.numpy as jnp
import numpy as np

from arvision.backbones.encoder_decoder import EncoderDecoder
from arvision.kernels.attention import AttentionMask
from arvision.layers.param import normal, param
from arvision.layouts import masks
from arvision.layouts.base import Layout
from arvision.ranges import AtLeast0
from arvision.structs import Slots


class Masked(EncoderDecoder):
  """Hidden rows do not enter the first half; the second has all rows.

  The first half is given the rows that are not hidden, the prefix first, filled
  up with rows that nobody sees to `Slots.max_unmasked`. After it they return to
  their places, among copies of one vector that stand for what is hidden. Every
  row sees all others: the layout is one entity.

  Source: arXiv 2406.11838; LTH14/mar, models/mar.py.

  Attributes:
    masked_std: standard deviation at the start of the vector for hidden tokens
      and of the positions that are added at the end (`out_position`).
  """

  masked_std: AtLeast0 = 0.02

  def _layers(self, x, inputs, cond, cache, layout, slots):
    if cache is not None or layout.steps != 1:
      raise ValueError(
        f'{type(self).__name__} fills masked tokens of one entity, got a cache or '
        f'{layout.steps} steps; set config.layout.type=layouts.grid.whole and '
        'config.sampler.type=samplers.random_order.RandomOrder'
      )
    rows, known = visible_rows(slots, layout)
    every = masks.same(np.zeros(known.shape[1], np.int32))
    seen = inputs.replace(mask=AttentionMask(every, known))
    x = jnp.take_along_axis(x, rows[..., None], 1)
    x, _ = self._stack('stack', self.depth)(x, seen, None)
    x = self._last_norm('norm_first', x, cond)
    x = self._linear(x)
    # Of two axes, since it decays as published.
    hidden = self._param('hole', (1, self.out_width))
    # A gather by the rank among visible rows, and no scatter to their places: it
    # stays within an example, so that devices need no rows of one another.
    masked = jnp.asarray(slots.masked)
    rank = jnp.cumsum(~masked, axis=1) - 1
    kept = ~masked & (rank < rows.shape[1])
    x = jnp.take_along_axis(x, jnp.where(kept, rank, 0)[..., None], 1)
    x = jnp.where(kept[..., None], x, hidden)
    x = x + self._positions('position_second', layout, slots)
    x = x.astype(self.dtype)
    x, _ = self._second(x, inputs, layout, slots)
    x = self._last_norm('norm', x, cond)
    if self.out_position:
      own = self._param('position_out', (layout.tokens, self.out_width))
      x = x.at[:, layout.readout[:, 0]].add(own)
    return x[:, :, None], None

  def _param(self, name, shape):
    names = (None,) * (len(shape) - 1) + ('embed',)
    return jnp.asarray(param(self, name, normal(self.masked_std), names, shape))


def visible_rows(slots: Slots, layout: Layout) -> tuple[jax.Array, jax.Array]:
  """The rows that are not hidden, in order, filled up with hidden ones.

  Args:
    slots: all of a layout, with `masked` (b, n).
    layout: static.

  Returns:
    (b, visible) int32 rows, and (b, visible) bool which are not hidden.
  """
  masked = jnp.asarray(slots.masked)
  most = slots.max_unmasked
  count = layout.slots if most is None else most
  rows = jnp.argsort(masked, axis=1, stable=True)[:, :count]
  return rows, ~jnp.take_along_axis(masked, rows, 1)
