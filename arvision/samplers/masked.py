"""MaskGIT sampling: parallel decoding in order of confidence."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from arvision.process.masking import (
  NoisyLogits,
  Policy,
  least_sure,
  masked_counts,
)
from arvision.ranges import Few
from arvision.samplers.base import Filling, over_all

_MASKED = -1


@dataclasses.dataclass(frozen=True)
class Masked(Filling):
  """MaskGIT sampler: parallel decoding in order of confidence.

  Every step samples all masked tokens and masks the least confident ones again.
  An unmasked token never changes. Of a token of several parts, every part is
  masked and unmasked by itself (MaskBit). `together` tokens are masked as one,
  with the mean of their confidences (ELM). `logits_filter` filters the logits; with a
  temperature of 0 the likeliest ids are taken and nothing is random.

  Source: arXiv 2202.04200; bytedance/1d-tokenizer, modeling/maskgit.py;
    markweberdev/maskbit (arXiv 2409.16211); Pepper-lll/LMforImageGeneration,
    llama/mlm_model.py.

  Attributes:
    steps: steps of the loop.
    schedule: schedule of `process.masking`: the share of ids that stay masked
      after every step.
    policy: samples ids and computes their confidence.
    together: consecutive ids that are masked as one.
  """

  steps: Few = 8
  schedule: str = 'arccos'
  policy: Policy = NoisyLogits(4.5)
  together: Few = 1

  fills_parts = True

  def within(self, network, state, cache, step, draw, known, plan):
    model = network.model
    shape = (draw.batch, len(step.tokens), *state.shape[2:])
    start = jnp.full(shape, _MASKED, jnp.int32)
    if known is not None:
      start = known.over(start, step.tokens)
    # Row u: the number of masked groups after every step, from u at the start.
    counts = np.array(
      [
        masked_counts(self.schedule, self.steps, u)
        for u in range(math.prod(shape[1:]) // self.together + 1)
      ]
    )
    groups = lambda x: x.reshape(draw.batch, -1, self.together)
    masked = jnp.any(groups(start == _MASKED), -1)
    left = jnp.asarray(counts)[jnp.sum(masked, -1)].T

    def advance(values, pass_):
      i, left = pass_
      masked = values == _MASKED
      given = model.push(state, step, jnp.where(masked, 0, values))
      everywhere = over_all(masked, step, model.layout.tokens)
      slots = model.feed_slots(given, step, everywhere)
      scale = lambda level: self.guidance(i, self.steps, level)
      z, merge, _ = network.look(slots, step.readout, scale, cache, False)
      query = model.query(slots, step.readout, i, self.steps)
      logits = merge(model.field(z, query))
      noise = (
        None
        if self.logits_filter.temperature == 0
        else 1 - (i + 1) / self.steps
      )
      ids, sure = self.policy(
        self.logits_filter.filter(logits), draw.fold(i), noise
      )
      ids = jnp.where(masked, ids, values)
      # Of a group with known tokens the others alone count.
      some = groups(masked)
      mean = jnp.mean(groups(sure), -1, where=some)
      sure = jnp.where(jnp.any(some, -1), mean, jnp.inf)
      again = least_sure(sure, left)[..., None] & some
      return jnp.where(again.reshape(shape), _MASKED, ids), values

    numbers = jnp.arange(self.steps)
    values, given = jax.lax.scan(advance, start, (numbers, left))
    state = model.push(state, step, values)
    cache = self.committed(network, state, cache, step)
    return state, cache, (given, given == _MASKED)
