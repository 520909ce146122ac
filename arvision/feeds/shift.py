"""Next token: every slot carries a token that was drawn before."""

import dataclasses

import jax.numpy as jnp

from arvision.feeds.base import carried, unknown
from arvision.layouts.base import take
from arvision.ranges import Share
from arvision.structs import Slots, Tokens


@dataclasses.dataclass(frozen=True)
class Shift:
  """Codes in the slots that the layout names (LlamaGen, 1D tokenizers)."""

  sees_own = False

  def train(self, tokens, layout, codec, draw):
    values = jnp.asarray(tokens.values)
    return Slots(
      values=carried(values, layout.token),
      index=layout.index,
      extent=layout.slots,
      present=layout.present,
      targets=values,
      weight=jnp.ones((1, layout.tokens), jnp.float32),
    )

  def init(self, batch, layout, codec):
    return unknown(batch, layout, codec)

  def slots(self, state, step, layout, codec):
    return Slots(
      values=carried(state, take(layout.token, step.index)),
      index=step.index,
      extent=step.extent,
      present=step.readout >= 0,
    )

  def push(self, state, step, tokens, layout, codec):
    # Padding (-1) is written outside of the array and dropped.
    place = jnp.where(step.tokens < 0, layout.tokens, step.tokens)
    return state.at[:, place].set(tokens, mode='drop')

  def finish(self, state):
    return Tokens(state)


@dataclasses.dataclass(frozen=True)
class Permuted(Shift):
  """Next token along an order that is drawn for every example (RAR).

  The layout is a raster whose i-th token is the i-th in the example's order;
  `Slots.place` and `Slots.aim` say where on the grid it is. Orders grow rarer in
  the course of a run until all are raster; without a run (evaluation, sampling)
  they are.

  Source: arXiv 2411.00776.

  Attributes:
    start: share of the run until which every order is random.
    end: share of the run from which on none is.
  """

  start: Share = 0.5
  end: Share = 0.75

  def train(self, tokens, layout, codec, draw):
    if draw.progress is None:
      return super().train(tokens, layout, codec, draw)
    values = jnp.asarray(tokens.values)
    raster = jnp.arange(layout.tokens)
    over = (draw.progress - self.start) / (self.end - self.start)
    random = draw.uniform('feed/random') < 1 - jnp.clip(over, 0, 1)
    drawn = draw.permutation('feed/order', layout.tokens)
    order = jnp.where(random[:, None], drawn, raster)
    permuted = Tokens(jnp.take_along_axis(values, order, axis=1))
    slots = super().train(permuted, layout, codec, draw)
    return slots.replace(
      place=_of_slots(order, layout.token), aim=_of_slots(order, layout.aim)
    )


def _of_slots(order, token):
  """Raster numbers (b, n) of the tokens of slots (n,), -1 for none."""
  return jnp.where(token >= 0, order[:, token.clip(0)], -1)
