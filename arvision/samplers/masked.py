"""Sampling of many tokens at once, the surest kept first (MaskGIT)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from arvision.process.guidance import guide
from arvision.process.masking import NoisyLogits, Policy, hidden_counts
from arvision.samplers.base import Sampler, tile
from arvision.structs import Draw, Tokens

_HIDDEN = -1


@dataclasses.dataclass(frozen=True)
class Masked(Sampler):
  """All hidden tokens are drawn at every step, and the least sure hidden again.

  What has been kept once never changes. `choice` filters the logits; with a
  temperature of 0 the best ids are taken and nothing is random.

  Source: arXiv 2202.04200; bytedance/1d-tokenizer, modeling/maskgit.py.

  Attributes:
    steps: of the loop.
    schedule: of `process.masking`, how many tokens stay hidden.
    policy: how ids are drawn and ranked.
  """

  steps: int = 8
  schedule: str = 'arccos'
  policy: Policy = NoisyLogits(4.5)

  cached = False

  def __call__(
    self, model: Any, inputs: dict, draw: Draw, batch: int
  ) -> Tokens:
    """Draws the tokens of a batch, see `EntityAR`."""
    return self.run(model, inputs, draw, batch)[0]

  def run(
    self, model: Any, inputs: dict, draw: Draw, batch: int
  ) -> tuple[Tokens, jax.Array]:
    """The tokens, and what every step was shown.

    Returns:
      tokens, and (steps, b, t) int32 with -1 for what was hidden.
    """
    layout = model.layout
    halves = 2 if self.guidance.active else 1
    null = jnp.repeat(jnp.arange(halves) > 0, batch)
    cond = model.condition(tile(inputs, halves), null)
    left = hidden_counts(self.schedule, self.steps, layout.tokens)

    def advance(values, step):
      i, left = step
      hole = values == _HIDDEN
      shown = (jnp.where(hole, 0, values), hole)
      slots = model.shown(*tile(shown, halves))
      z, _ = model.read(slots, cond, None, layout.readout)
      logits = model.field(z, slots)
      if halves == 2:
        logits = guide(*jnp.split(logits, 2), self.guidance(i, self.steps))
      noise = None if self.choice.temperature == 0 else 1 - (i + 1) / self.steps
      ids, sure = self.policy(self.choice.filter(logits), draw.fold(i), noise)
      ids = jnp.where(hole, ids, values)
      sure = jnp.where(hole, sure, jnp.inf)
      cut = jnp.sort(sure, axis=-1)[:, jnp.maximum(left - 1, 0)]
      again = (sure <= cut[:, None]) & (left > 0)
      return jnp.where(again, _HIDDEN, ids), values

    start = jnp.full((batch, layout.tokens), _HIDDEN, jnp.int32)
    numbers = jnp.arange(self.steps), jnp.array(left)
    values, shown = jax.lax.scan(advance, start, numbers)
    return Tokens(values), shown
