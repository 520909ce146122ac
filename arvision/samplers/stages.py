"""Hi-MAR sampling: one scale after another, each in a random order."""

import dataclasses

from arvision.process.guidance import Constant, Schedule
from arvision.ranges import Few
from arvision.samplers.random_order import Joint, RandomOrder


class Recalled(RandomOrder):
  """`RandomOrder` with a backbone that keeps hidden states of masked tokens.

  Every pass writes to the cache, which the steps therefore hand on.
  """

  def within(self, network, state, cache, step, draw, known, plan):
    (state, cache), _, trace = super().within(
      network, state, cache, step, draw, known, plan
    )
    return state, cache, trace

  def fill(self, run, state, table):
    return super().fill(run, (state, run.cache), table)

  def advance(self, run, state, i, most, width):
    tokens, cache = state
    masked = run.masked(run.counts[:, i])
    slots = self.slots(run, tokens, masked, most)
    readout = run.step.readout
    z, merge, cache = self.look(run, slots, readout, i, cache, commit=True)
    new = self.unmask(run, tokens, i, z, merge, width)
    return (new, cache), (tokens, masked)

  def committed(self, network, state, cache, step):
    return cache


@dataclasses.dataclass(frozen=True)
class Stages(Joint):
  """Fills the smallest scale token by token, then every other one jointly.

  The hidden states that later stages read are those of the conditional half, for
  both halves. A known token is never masked, so it has none, as in training.

  Source: arXiv 2505.20288; HiDream-ai/himar, models/himar.py.

  Attributes:
    first_steps: steps of the loop of the smallest scale; `steps` are those of
      every other one.
    first_guidance: schedule of the guidance scale of the smallest scale.
  """

  first_steps: Few = 32
  first_guidance: Schedule = Constant()

  recalls = True

  @property
  def guided(self):
    return self.guidance.active or self.first_guidance.active

  def guided_to(self, scale):
    first = self.first_guidance.scaled_to(scale)
    return dataclasses.replace(super().guided_to(scale), first_guidance=first)

  def within(self, network, state, cache, step, draw, known, plan):
    if step.s:
      return super().within(network, state, cache, step, draw, known, plan)
    first = Recalled(
      self.first_guidance,
      self.logits_filter,
      site=self.site,
      steps=self.first_steps,
      schedule=self.schedule,
      buckets=self.buckets,
    )
    state, cache, trace = first.within(
      network, state, cache, step, draw, known, plan
    )
    return state, network.conditional(cache), trace
