"""Feeds: make the inputs of the network from tokens."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from arvision.layouts.base import Layout, Step, take
from arvision.random import Draw
from arvision.structs import Array, Slots, Targets, Tokens


class Feed(Protocol):
  """Makes slots from tokens; has no parameters.

  `train` makes all slots of an example at once. `init`, `slots` and `push` make
  the same slots step by step during sampling.

  Attributes:
    sees_own: whether slots depend on the tokens of their own entity (noisy or
      masked), or on earlier entities only.
    fills: whether `slots` takes a mask, so that the tokens of an entity can be
      sampled over several passes.
    masks_parts: whether the mask has an entry for every part of a token.
    noisy_past: whether slots show earlier entities with noise in training.
  """

  sees_own: bool
  fills: bool
  masks_parts: bool
  noisy_past: bool

  def train(
    self, tokens: Tokens, layout: Layout, codec: Any, draw: Draw
  ) -> tuple[Slots, Targets]:
    """All slots (zeros in prefix slots) and the training targets."""

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
    """The slots of one step.

    `masked` is for a feed that `fills`: (b, t) bool, or shaped like the tokens
    for one that `masks_parts`.
    """

  def push(
    self, state: Any, step: Step, tokens: Any, layout: Layout, codec: Any
  ) -> Any:
    """The state with the tokens (b, t) or (b, t, parts) of a step.

    Tokens with a negative `step.tokens` are padding.
    """

  def finish(self, state: Any) -> Tokens:
    """The tokens in raster order."""


class TokenState:
  """A feed whose state is the tokens, zeros for those not sampled yet."""

  sees_own = False
  fills = False
  masks_parts = False
  noisy_past = False

  def init(self, batch, layout, codec):
    if codec is None:
      return jnp.zeros((batch, layout.tokens), jnp.int32)
    return codec.spec.blank(batch).values

  def push(self, state, step, tokens, layout, codec):
    return put(state, step, tokens)

  def finish(self, state):
    return Tokens(state)


def put(values: jax.Array, step: Step, tokens: jax.Array) -> jax.Array:
  """Writes the tokens (b, e, ...) of a step into values (b, t, ...)."""
  # Padding (-1) would wrap around; an index out of bounds is dropped.
  index = jnp.where(step.tokens < 0, values.shape[1], step.tokens)
  return values.at[:, index].set(tokens, mode='drop')


def all_slots(values: Array, layout: Layout, **fields) -> Slots:
  """The slots of a whole layout.

  Args:
    values: (b, n) or (b, n, c).
    layout: static.
    **fields: further fields of `Slots`.
  """
  return Slots(values, layout.index, layout.slots, **fields)


def step_slots(values: Array, step: Step, **fields) -> Slots:
  """The slots of one step; arguments as in `all_slots`."""
  return Slots(values, step.index, step.extent, **fields)


def all_targets(values: Array, **fields) -> Targets:
  """Targets (b, t, ...) with weight 1 and further fields of `Targets`."""
  return Targets(values, jnp.ones((1, values.shape[1]), jnp.float32), **fields)


def carried(values: Array, layout: Layout, index: Array | None = None) -> Array:
  """Gathers the tokens that slots carry, 0 for slots without one.

  Args:
    values: (b, t) or (b, t, c).
    layout: static.
    index: (e,) slots of the layout; None: all.

  Returns:
    (b, e) or (b, e, c).
  """
  token = layout.token if index is None else take(layout.token, index)
  there = (token >= 0).reshape(-1, *[1] * (values.ndim - 2))
  return jnp.where(there, values[:, token.clip(0)], 0)
