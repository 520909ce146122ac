"""Sampling of many tokens at once, the surest kept first (MaskGIT)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arvision.process.masking import (
  NoisyLogits,
  Policy,
  hidden_counts,
  least_sure,
)
from arvision.ranges import Few
from arvision.samplers.base import HoleFilling, Known, Network
from arvision.structs import Draw, Tokens

_MASKED = -1


@dataclasses.dataclass(frozen=True)
class Masked(HoleFilling):
  """All hidden tokens are drawn at every step, and the least sure hidden again.

  What has been kept once never changes. `choice` filters the logits; with a
  temperature of 0 the best ids are taken and nothing is random.

  Source: arXiv 2202.04200; bytedance/1d-tokenizer, modeling/maskgit.py.

  Attributes:
    steps: of the loop.
    schedule: of `process.masking`, how many tokens stay hidden.
    policy: how ids are drawn and ranked.
  """

  steps: Few = 8
  schedule: str = 'arccos'
  policy: Policy = NoisyLogits(4.5)

  def run(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> tuple[Tokens, jax.Array, jax.Array]:
    layout = model.layout
    whole = layout.runs[0].step(0)
    network = Network(self, model, inputs, batch)
    start = jnp.full((batch, layout.tokens), _MASKED, jnp.int32)
    if known is not None:
      start = known.over(start)
    # Row u: how many of u tokens stay hidden after every step.
    counts = np.array(
      [
        hidden_counts(self.schedule, self.steps, u)
        for u in range(layout.tokens + 1)
      ]
    )
    left = jnp.asarray(counts)[jnp.sum(start == _MASKED, -1)].T

    def advance(values, step):
      i, left = step
      masked = values == _MASKED
      slots = model.feed_slots(jnp.where(masked, 0, values), whole, masked)
      scale = lambda level: self.guidance(i, self.steps, level)
      z, merge, _ = network.look(slots, layout.readout, scale)
      query = model.query(slots, layout.readout, i, self.steps)
      logits = merge(model.field(z, query))
      noise = None if self.choice.temperature == 0 else 1 - (i + 1) / self.steps
      ids, sure = self.policy(self.choice.filter(logits), draw.fold(i), noise)
      ids = jnp.where(masked, ids, values)
      sure = jnp.where(masked, sure, jnp.inf)
      again = least_sure(sure, left)
      return jnp.where(again, _MASKED, ids), values

    values, shown = jax.lax.scan(advance, start, (jnp.arange(self.steps), left))
    return Tokens(values), shown, shown == _MASKED
