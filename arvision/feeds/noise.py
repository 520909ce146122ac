"""Noisy tokens: every slot carries its own token at a noise level (xAR)."""

import dataclasses

import jax
import jax.numpy as jnp

from arvision.feeds.base import carried, unknown
from arvision.layouts.base import take
from arvision.process.flow import draw_levels, mix
from arvision.structs import Draw, Slots, Tokens


@dataclasses.dataclass(frozen=True)
class Noise:
  """Every entity has a noise level and noise of its own.

  In training the past of an entity is as noisy as its levels say, so the network
  never learns to trust it blindly. What is predicted is the velocity of every
  token, see `process.flow`. In sampling the slots carry the tokens as they
  stand; the sampler says at what level they are.

  Source: arXiv 2502.20388 (noisy context learning).

  Attributes:
    levels: law of the levels, of `process.flow.LEVELS`.
  """

  levels: str = 'logit_normal'
  sees_own = True

  def train(self, tokens, layout, codec, draw):
    clean = carried(jnp.asarray(tokens.values), layout.token)
    level = self.level(draw, layout.steps)
    noise = draw.normal('noise', clean.shape[1:])
    return Slots(
      values=mix(clean, noise, level[:, layout.entity]),
      index=layout.index,
      extent=layout.slots,
      level=level,
      present=layout.present,
      targets=(noise - clean)[:, layout.readout[:, 0]],
      weight=jnp.ones((1, layout.tokens), jnp.float32),
    )

  def level(self, draw: Draw, steps: int) -> jax.Array:
    """(b, steps) levels of all entities of the examples."""
    return draw_levels(self.levels, draw, (steps,))

  def init(self, batch, layout, codec):
    return unknown(batch, layout, codec)

  def slots(self, state, step, layout, codec):
    """The slots of a step as they stand, at level 0 unless it is replaced."""
    return Slots(
      values=carried(state, take(layout.token, step.index)),
      index=step.index,
      extent=step.extent,
      level=jnp.zeros((1, 1), jnp.float32),
      present=step.readout >= 0,
    )

  def push(self, state, step, tokens, layout, codec):
    return state.at[:, step.tokens].set(tokens)

  def finish(self, state):
    return Tokens(state)
