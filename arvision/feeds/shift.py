"""Next-token prediction: every slot carries an earlier token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from arvision.feeds.base import (
  TokenState,
  all_slots,
  all_targets,
  carried,
  step_slots,
)
from arvision.layouts.base import Layout, take
from arvision.ranges import Below1, Share
from arvision.structs import Array, Slots, Tokens


@dataclasses.dataclass(frozen=True)
class Shift(TokenState):
  """Slots carry the codes that the layout assigns to them (LlamaGen).

  With a masked share, some of the input codes are masked in training, random ones
  of every example, and all codes are predicted still (MEAP). Outside of training
  none is. The input embedding needs a row for masked codes.

  Source: arXiv 2502.07490; scitix/MEAP, pretrained/meap_1b.py.

  Attributes:
    masked: share of the input codes, rounded down to at least one; 0: none.
  """

  masked: Below1 = 0.0

  def train(self, tokens, layout, codec, draw):
    slots = all_slots(carried(tokens.given, layout), layout)
    if self.masked and draw.progress is not None:
      slots = slots.replace(masked=self._masked(layout, draw))
    return slots, all_targets(jnp.asarray(tokens.values))

  def _masked(self, layout, draw):
    """(b, n) bool, the slots whose code is masked."""
    carrying = np.flatnonzero(layout.token >= 0)
    count = max(1, int(self.masked * len(carrying)))
    order = draw.permutation('feed/masked', len(carrying))
    none = jnp.zeros((len(order), layout.slots), bool)
    return none.at[:, carrying].set(order < count)

  def slots(self, state, step, layout, codec):
    return step_slots(carried(state, layout, step.index), step)


@dataclasses.dataclass(frozen=True)
class Permuted(Shift):
  """Next-token prediction in a random order per example (RAR).

  Token i of the layout is the i-th token of the example's order.
  `Slots.position` and `Slots.target_position` state the positions on the grid.
  The probability of a random order falls from 1 to 0 during training;
  otherwise, and outside of training, the order is raster.

  Source: arXiv 2411.00776.

  Attributes:
    start: share of the run after which the probability starts to fall.
    end: share of the run after which it is 0.
  """

  start: Share = 0.5
  end: Share = 0.75

  def train(self, tokens, layout, codec, draw):
    if draw.progress is None:
      return super().train(tokens, layout, codec, draw)
    raster = jnp.arange(layout.tokens)
    over = (draw.progress - self.start) / (self.end - self.start)
    random = draw.uniform('feed/random') < 1 - jnp.clip(over, 0, 1)
    drawn = draw.permutation('feed/order', layout.tokens)
    order = jnp.where(random[:, None], drawn, raster)
    permuted = Tokens(
      in_order(tokens.values, order), in_order(tokens.given, order)
    )
    slots, targets = super().train(permuted, layout, codec, draw)
    return at_order(slots, order, layout), targets


def in_order(values: Array, order: Array) -> jax.Array:
  """values (b, t, ...) in the orders (b, t) of the examples."""
  values, order = jnp.asarray(values), jnp.asarray(order)
  order = order.reshape(*order.shape, *[1] * (values.ndim - 2))
  return jnp.take_along_axis(values, order, axis=1)


def at_order(slots: Slots, order: Array, layout: Layout) -> Slots:
  """Slots with the positions of tokens that are permuted to orders (b, t)."""

  def of(token):
    token = take(token, slots.index)
    return jnp.where(token >= 0, jnp.asarray(order)[:, token.clip(0)], -1)

  return slots.replace(
    position=of(layout.token), target_position=of(layout.target_position)
  )
