"""Autoregressive sampling in random orders."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from arvision.feeds.shift import at_order, in_order
from arvision.samplers.base import Known, Sampler
from arvision.samplers.entity import EntityAR
from arvision.structs import Array, Tokens


class _Ordered:
  """A model whose feed states where the tokens of an order are.

  Attributes:
    model: a `BoundModel`.
    order: (b, t) int32.
  """

  def __init__(self, model: Any, order: Array):
    self.model, self.order = model, order

  def __getattr__(self, name: str) -> Any:
    return getattr(self.model, name)

  def feed_slots(self, state, step, masked=None):
    slots = self.model.feed_slots(state, step, masked)
    return at_order(slots, self.order, self.model.layout)


@dataclasses.dataclass(frozen=True)
class Shuffled(EntityAR):
  """Autoregressive sampler in a random order per example.

  For models that were trained in random orders (`feeds.shift.Permuted`).
  """

  def loop(self, model, inputs, draw, batch, known=None):
    order = draw.permutation('sampler/order', model.layout.tokens)
    if known is not None:
      known = Known(in_order(known.values, order), in_order(known.keep, order))
    ordered = _Ordered(model, order)
    tokens, traces = Sampler.loop(self, ordered, inputs, draw, batch, known)
    raster = jnp.argsort(order, -1)
    return Tokens(in_order(tokens.values, raster)), traces
