"""Autoregressive sampling: one forward pass per entity."""

import dataclasses

from arvision.ranges import Natural
from arvision.samplers.base import Sampler


@dataclasses.dataclass(frozen=True)
class EntityAR(Sampler):
  """Autoregressive sampler: one forward pass per entity.

  The head samples all tokens of an entity at once.

  Attributes:
    greedy_steps: steps at which the likeliest id is taken (FlexVAR's odd
      scales); only for layouts that are not scanned.
  """

  greedy_steps: tuple[Natural, ...] = ()

  def within(self, network, state, cache, step, draw, known, plan):
    model, steps = network.model, network.model.layout.steps
    slots = model.feed_slots(state, step)
    scale = lambda level: self.guidance(step.s, steps, level)
    again = model.layout.two_streams
    z, merge, cache = network.look(slots, step.readout, scale, cache, not again)
    sampling = self.logits_filter
    if self.greedy_steps and int(step.s) in self.greedy_steps:
      sampling = dataclasses.replace(sampling, temperature=0.0)
    query = model.query(slots, step.readout, step.s, steps)
    tokens = model.sample(z, draw, merge, sampling, query)
    if known is not None:
      tokens = known.over(tokens, step.tokens)
    state = model.push(state, step, tokens)
    if again:
      cache = self.committed(network, state, cache, step)
    return state, cache, None
