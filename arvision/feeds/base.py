"""What the network is given instead of the tokens that it predicts."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from arvision.layouts.base import Layout, Step, take
from arvision.random import Draw
from arvision.structs import Array, Slots, Targets, Tokens


class Feed(Protocol):
  """A feed has no parameters and knows no backbone.

  `train` gives all slots of an example at once; `init`, `slots` and `push`
  build the same slots step by step while tokens are sampled.

  Attributes:
    sees_own: whether the slots of an entity carry something of its own tokens
      (noise feeds); False where they are made of earlier entities only.
    fills: whether `slots` takes a mask: some of the tokens are hidden from the
      network and sampled over several passes.
  """

  sees_own: bool
  fills: bool

  def train(
    self, tokens: Tokens, layout: Layout, codec: Any, draw: Draw
  ) -> tuple[Slots, Targets]:
    """All slots, prefix slots with zeros, and what is trained on."""

  def init(self, batch: int, layout: Layout, codec: Any) -> Any:
    """The state before the first step; a pytree of fixed shapes."""

  def slots(
    self,
    state: Any,
    step: Step,
    layout: Layout,
    codec: Any,
    masked: Array | None = None,
  ) -> Slots:
    """The slots of one step; `masked` (b, t) bool where the feed `fills`."""

  def push(
    self, state: Any, step: Step, tokens: Any, layout: Layout, codec: Any
  ) -> Any:
    """The state after the tokens (b, t) or (b, t, parts) of a step are known.

    Tokens whose number in `step.tokens` is negative are padding.
    """

  def finish(self, state: Any) -> Tokens:
    """The tokens in raster order."""


class TokenState:
  """A feed whose state is the tokens, zeros where none is known yet."""

  sees_own = False
  fills = False

  def init(self, batch, layout, codec):
    if codec is None:
      return jnp.zeros((batch, layout.tokens), jnp.int32)
    return codec.spec.blank(batch).values

  def push(self, state, step, tokens, layout, codec):
    return put(state, step, tokens)

  def finish(self, state):
    return Tokens(state)


def put(values: jax.Array, step: Step, tokens: jax.Array) -> jax.Array:
  """Values (b, t, ...) with the tokens (b, e, ...) of a step in their places."""
  # Padding (-1) is written outside of the array and dropped.
  place = jnp.where(step.tokens < 0, values.shape[1], step.tokens)
  return values.at[:, place].set(tokens, mode='drop')


def all_slots(values: Array, layout: Layout, **fields) -> Slots:
  """The slots of a whole layout.

  Args:
    values: (b, n) or (b, n, c).
    layout: static.
    **fields: further ones of `Slots`.
  """
  return Slots(values, layout.index, layout.slots, **fields)


def step_slots(values: Array, step: Step, **fields) -> Slots:
  """The slots of one step, see `all_slots`."""
  return Slots(values, step.index, step.extent, **fields)


def all_targets(values: Array, **fields) -> Targets:
  """Targets (b, t, ...) of equal weights, see `all_slots`."""
  return Targets(values, jnp.ones((1, values.shape[1]), jnp.float32), **fields)


def carried(values: Array, layout: Layout, index: Array | None = None) -> Array:
  """What the slots of a layout carry of tokens, 0 for none.

  Args:
    values: (b, t) or (b, t, c).
    layout: static.
    index: (e,) some of its slots; None: all.

  Returns:
    (b, e) or (b, e, c).
  """
  token = layout.token if index is None else take(layout.token, index)
  there = (token >= 0).reshape(-1, *[1] * (values.ndim - 2))
  return jnp.where(there, values[:, token.clip(0)], 0)
