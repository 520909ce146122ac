"""MaskGIT sampling: parallel decoding in order of confidence."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arvision.layouts.base import Step
from arvision.process.masking import (
  NoisyLogits,
  Policy,
  least_sure,
  masked_counts,
)
from arvision.random import Draw
from arvision.ranges import Few
from arvision.samplers.base import Filling, Network, over_all
from arvision.structs import Slots

_MASKED = -1


class Run(NamedTuple):
  """What all passes over an entity have in common.

  Attributes:
    network, state, cache, step, draw: see `Sampler.within`.
  """

  network: Network
  state: Any
  cache: Any
  step: Step
  draw: Draw


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
    shape = (draw.batch, len(step.tokens), *state.shape[2:])
    start = jnp.full(shape, _MASKED, jnp.int32)
    if known is not None:
      start = known.over(start, step.tokens)
    table = self.counts(math.prod(shape[1:]) // self.together)
    hidden = jnp.any(self.groups(start == _MASKED), -1)
    left = jnp.asarray(table)[jnp.sum(hidden, -1)].T
    run = Run(network, state, cache, step, draw)
    # Without known tokens all start from the same number.
    table = table[-1:] if known is None else table
    values, given = self.fill(run, start, left, table)
    state = network.model.push(state, step, values)
    cache = self.committed(network, state, cache, step)
    return state, cache, (given, given == _MASKED)

  def fill(
    self, run: Run, start: jax.Array, left: jax.Array, table: np.ndarray
  ) -> tuple[jax.Array, jax.Array]:
    """Fills an entity.

    Args:
      run: see `Run`.
      start: (b, e, ...) int32, -1 for masked ids.
      left: (steps + 1, b) int32 masked groups before every step, and at the end.
      table: (starts, steps + 1) the columns of `left` that occur.

    Returns:
      (b, e, ...) ids, and (steps, b, e, ...) what entered every pass.
    """
    del table

    def advance(values, pass_):
      i, left = pass_
      return self.advance(run, values, i, left, i, self.steps)[0], values

    return jax.lax.scan(advance, start, (jnp.arange(self.steps), left[1:]))

  def advance(
    self,
    run: Run,
    values: jax.Array,
    i: Any,
    left: jax.Array,
    group: Any,
    groups: int,
    cache: Any = None,
  ) -> tuple[jax.Array, jax.Array, Any]:
    """One step: a pass over all tokens.

    Args:
      run: see `Run`.
      values: (b, e, ...) int32, -1 for masked ids.
      i: () number of the step.
      left: (b,) number of masked groups after it.
      group, groups: () number of what the noise falls over, and how many.
      cache: an empty one to fill, or None.

    Returns:
      the new values; (b, g) confidence of every group of ids, infinite where
      nothing was masked; and the cache.
    """
    slots = self.slots(run, values)
    looked = run.cache if cache is None else cache
    logits, cache = self.logits(
      run, slots, run.step.readout, i, i, looked, cache is not None
    )
    noise = self.noise(group, groups)
    ids, sure = self.policy(logits, run.draw.fold(i), noise, self.progress(i))
    masked = values == _MASKED
    ids = jnp.where(masked, ids, values)
    # Of a group with known tokens the others alone count.
    some = self.groups(masked)
    mean = jnp.mean(self.groups(sure), -1, where=some)
    sure = jnp.where(jnp.any(some, -1), mean, jnp.inf)
    again = least_sure(sure, left)[..., None] & some
    return jnp.where(again.reshape(ids.shape), _MASKED, ids), sure, cache

  def slots(self, run: Run, values: jax.Array) -> Slots:
    """The slots of values (b, e, ...) with -1 for masked ids."""
    return slots_of(run, values)

  def logits(
    self,
    run: Run,
    slots: Slots,
    readout: Any,
    i: Any,
    guided: Any,
    cache: Any,
    commit: bool,
  ) -> tuple[jax.Array, Any]:
    """The filtered logits (b, t, ..., v) of a pass, and its cache.

    Args:
      run: see `Run`.
      slots, readout, cache, commit: see `Network.look`.
      i: () number of the step.
      guided: () number of the step whose guidance scale it has.
    """
    network, model = run.network, run.network.model
    scale = lambda level: self.guidance(guided, self.steps, level)
    z, merge, cache = network.look(slots, readout, scale, cache, commit)
    query = model.query(slots, readout, i, self.steps)
    return self.logits_filter.filter(merge(model.field(z, query))), cache

  def noise(self, group: Any, groups: int) -> Any:
    """The factor of the policy's noise, None for none."""
    if self.logits_filter.temperature == 0:
      return None
    return 1 - (group + 1) / groups

  def progress(self, i: Any) -> Any:
    """From 0 at the first step to 1 at the last."""
    return i / max(self.steps - 1, 1)

  def groups(self, x: jax.Array) -> jax.Array:
    """(b, e, ...) -> (b, g, together)."""
    return x.reshape(len(x), -1, self.together)

  def counts(self, groups: int) -> np.ndarray:
    """Row u: masked groups before every step, u of them, and at the end."""
    return np.array(
      [
        [u, *masked_counts(self.schedule, self.steps, u)]
        for u in range(groups + 1)
      ]
    )


def slots_of(run: Run, values: jax.Array) -> Slots:
  """The slots of values (b, e, ...) with -1 for masked ids."""
  model, masked = run.network.model, values == _MASKED
  given = model.push(run.state, run.step, jnp.where(masked, 0, values))
  everywhere = over_all(masked, run.step, model.layout.tokens)
  return model.feed_slots(given, run.step, everywhere)
