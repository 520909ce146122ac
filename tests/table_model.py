"""A masked model whose logits are a function of the tokens, for samplers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arvision.feeds.mask import RandomMask
from arvision.layouts.base import Layout
from arvision.layouts.grid import whole


class TableModel:
  """What samplers see of a `BoundModel`.

  Attributes:
    logits: values (b, t), -1 where masked -> logits (b, t, v).
    layout: the tokens, one entity.
    prompt: (t,) bool, tokens that are masked for the null condition.
  """

  module = SimpleNamespace(condition=SimpleNamespace(reads_slots=False))

  def __init__(self, logits: Callable, tokens: int, prompt: Any = None):
    self.logits, self._feed = logits, RandomMask()
    self.layout: Layout = whole(1, tokens, prefix=0)
    self.prompt = np.zeros(tokens, bool) if prompt is None else prompt

  def start(self, batch):
    return self._feed.init(batch, self.layout, None)

  def push(self, state, step, tokens):
    return self._feed.push(state, step, tokens, self.layout, None)

  def finish(self, state):
    return self._feed.finish(state)

  def feed_slots(self, state, step, masked=None):
    return self._feed.slots(state, step, self.layout, None, masked)

  def condition(self, inputs, null, slots=None):
    return null

  def read(self, slots, cond, cache, readout, commit=True):
    values = jnp.where(slots.masked, -1, slots.values)
    values = jnp.where(cond[:, None] & self.prompt, -1, values)
    return self.logits(values)[:, readout[:, 0]], cache

  def field(self, z: jax.Array, query: Any) -> jax.Array:
    return z

  def query(self, slots, readout, step=None, steps=0):
    return None
