"""Autoregressive sampling: one forward pass per entity."""

import dataclasses
from typing import Any

from arvision.process.logits import LogitsFilter
from arvision.ranges import Natural, Temperature
from arvision.samplers.base import Sampler


@dataclasses.dataclass(frozen=True)
class EntityAR(Sampler):
  """Autoregressive sampler: one forward pass per entity.

  The head samples all tokens of an entity at once.

  Attributes:
    greedy_steps: steps at which the likeliest id is taken (FlexVAR's odd
      scales); only for layouts that are not scanned.
    temperatures: of every step, for layouts that are not scanned; (): that of
      `logits_filter` (Infinity's tau_list).
  """

  greedy_steps: tuple[Natural, ...] = ()
  temperatures: tuple[Temperature, ...] = ()

  def within(self, network, state, cache, step, draw, known, plan):
    model, steps = network.model, network.model.layout.steps
    slots = model.feed_slots(state, step)
    scale = lambda level: self.guidance(step.s, steps, level)
    again = model.layout.two_streams
    z, merge, cache = network.look(slots, step.readout, scale, cache, not again)
    sampling = self.filter_of(step.s, steps)
    query = model.query(slots, step.readout, step.s, steps)
    tokens = model.sample(z, draw, merge, sampling, query)
    if known is not None:
      tokens = known.over(tokens, step.tokens)
    state = model.push(state, step, tokens)
    if again:
      cache = self.committed(network, state, cache, step)
    return state, cache, None

  def filter_of(self, s: Any, steps: int) -> LogitsFilter:
    """The filter of step s."""
    sampling = self.logits_filter
    if self.temperatures:
      if len(self.temperatures) != steps:
        raise ValueError(
          f'config.sampler.temperatures has {len(self.temperatures)} entries for '
          f'{steps} steps'
        )
      own = self.temperatures[int(s)]
      sampling = dataclasses.replace(sampling, temperature=own)
    if self.greedy_steps and int(s) in self.greedy_steps:
      sampling = dataclasses.replace(sampling, temperature=0.0)
    return sampling
