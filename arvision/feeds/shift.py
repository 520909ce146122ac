"""Next token: every slot carries a token that was drawn before."""

import dataclasses

import jax.numpy as jnp

from arvision.layouts.base import take
from arvision.structs import Slots, Tokens


@dataclasses.dataclass(frozen=True)
class Shift:
  """Codes in the slots that the layout names (LlamaGen, 1D tokenizers)."""

  sees_own = False

  def train(self, tokens, layout, codec, draw):
    values = jnp.asarray(tokens.values)
    return Slots(
      values=_carried(values, layout.token),
      index=layout.index,
      extent=layout.slots,
      present=layout.present,
      targets=values,
      weight=jnp.ones((1, layout.tokens), jnp.float32),
    )

  def init(self, batch, layout, codec):
    return jnp.zeros((batch, layout.tokens), jnp.int32)

  def slots(self, state, step, layout, codec):
    return Slots(
      values=_carried(state, take(layout.token, step.index)),
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


def _carried(values, token):
  """Tokens of (n,) slots; zero where a slot carries none."""
  return jnp.where(token >= 0, values[:, token.clip(0)], 0)
