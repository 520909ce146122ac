"""Tokens that a transition matrix has masked and replaced (VQ-Diffusion)."""

import dataclasses

import jax.numpy as jnp

from arvision.feeds.mask import Masked
from arvision.process.transitions import MaskAndReplace
from arvision.structs import Targets


@dataclasses.dataclass(frozen=True)
class Transition(Masked):
  """Every slot carries its own token at a random time of a discrete diffusion.

  Times are uniform, or have the probabilities `Draw.odds` that the task adapts;
  the loss of an example is divided by the probability of its time. In sampling,
  the sampler sets the level.

  Source: arXiv 2111.14822; microsoft/VQ-Diffusion, diffusion_transformer.py.

  Attributes:
    process: the transition matrices.
  """

  process: MaskAndReplace

  def train(self, tokens, layout, codec, draw):
    process, values = self.process, jnp.asarray(tokens.values)
    odds = draw.odds
    if odds is None:
      odds = jnp.full((process.steps,), 1 / process.steps)
    odds = jnp.asarray(odds, jnp.float32)
    logits = jnp.broadcast_to(jnp.log(odds), (len(values), process.steps))
    drawn = draw.categorical('feed/time', logits)
    log_x = process.forward(process.one_hot(values), drawn + 1)
    noise = draw.gumbel('feed/noise', log_x.shape[1:])
    noised = jnp.argmax(log_x + noise, -1).astype(jnp.int32)
    masked = noised == process.mask
    shown = tokens.replace(values=jnp.where(masked, 0, noised), shown=None)
    slots = self._all(shown, layout, codec, masked)
    slots = slots.replace(level=process.level(drawn + 1)[:, None])
    weight = jnp.broadcast_to(1 / odds[drawn][:, None], values.shape)
    return slots, Targets(values, weight, jnp.ones(values.shape))
