"""What the network is given in place of the truth."""

from typing import Any, Protocol

import jax.numpy as jnp

from arvision.layouts.base import Layout, Step
from arvision.structs import Draw, Slots, Tokens


class Feed(Protocol):
  """A feed has no parameters and knows no backbone.

  `train` gives all slots of an example at once; `init`, `slots` and `push`
  build the same slots step by step while tokens are drawn.

  Attributes:
    sees_own: whether the slots of an entity carry something of its own tokens
      (noise feeds); False where they are made of earlier entities only.
  """

  sees_own: bool

  def train(
    self, tokens: Tokens, layout: Layout, codec: Any, draw: Draw
  ) -> Slots:
    """All slots, with targets and weights; prefix slots hold zeros."""

  def init(self, batch: int, layout: Layout, codec: Any) -> Any:
    """The state before the first step; a pytree of fixed shapes."""

  def slots(self, state: Any, step: Step, layout: Layout, codec: Any) -> Slots:
    """The slots of one step."""

  def push(
    self, state: Any, step: Step, tokens: Any, layout: Layout, codec: Any
  ) -> Any:
    """The state after the tokens (b, t) or (b, t, c) of a step are known."""

  def finish(self, state: Any) -> Tokens:
    """The tokens in raster order."""


def unknown(batch: int, layout: Layout, codec: Any) -> Any:
  """Zeros in the place of tokens, of the kind that the codec has."""
  if codec is None or codec.spec.kind == 'codes':
    return jnp.zeros((batch, layout.tokens), jnp.int32)
  whole = codec.spec.kind == 'levels'
  shape = (batch, layout.tokens, codec.spec.channels)
  return jnp.zeros(shape, jnp.int32 if whole else jnp.float32)


def entering(values: Any, codec: Any) -> Any:
  """What stands for tokens in the network: of levels, the latents they mean."""
  if getattr(getattr(codec, 'spec', None), 'kind', '') == 'levels':
    return codec.embed(values)
  return values


def carried(values: Any, token: Any) -> Any:
  """(b, n) or (b, n, c) the tokens that slots carry, 0 for none.

  Args:
    values: (b, t) or (b, t, c).
    token: (n,) int32 raster index of a slot's token, -1 for none.
  """
  there = token >= 0
  if values.ndim == 3:
    there = there[:, None]
  return jnp.where(there, values[:, token.clip(0)], 0)
