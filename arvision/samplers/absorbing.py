"""Samplers of absorbing diffusion: ancestral and first hitting."""

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arvision.process.absorbing import (
  hitting_time,
  stay_shares,
  uneven_stay_shares,
)
from arvision.process.guidance import Constant
from arvision.random import Draw
from arvision.ranges import Below1, Few
from arvision.samplers.base import Sampler
from arvision.samplers.masked import Run, slots_of

_MASKED = -1


@dataclasses.dataclass(frozen=True)
class Absorbing(Sampler):
  """Base of samplers that unmask the masked tokens of an entity over time.

  An unmasked token never changes, and the network does not read the time. So it is
  not called where no token of the batch is masked, nor, with a constant guidance
  scale, where none changed since the last call. Every part of a token is masked and unmasked by itself.

  The trace of `loop` is what `samplers.masked.Masked` gives: the ids that enter
  every step, and their masks.
  """

  fills = True
  fills_parts = True

  @abc.abstractmethod
  def passes(self, tokens: int) -> int:
    """The number of steps for an entity of some tokens."""

  @abc.abstractmethod
  def unmask(
    self, values: jax.Array, logits: jax.Array, draw: Draw, i: Any, memory: Any
  ) -> tuple[jax.Array, Any]:
    """One step.

    Args:
      values: (b, n) int32 ids, -1 where masked.
      logits: (b, n, v) float32, guided and not filtered.
      draw: keys of this step.
      i: () number of the step.
      memory: what the last step returned.

    Returns:
      the new values, and the memory of the next step.
    """

  def memory(self, logits: Any) -> Any:
    """The memory of the first step; `logits` has shape and dtype alone."""
    del logits

  def within(self, network, state, cache, step, draw, known, plan):
    model = network.model
    shape = (draw.batch, len(step.tokens), *state.shape[2:])
    start = jnp.full(shape, _MASKED, jnp.int32)
    if known is not None:
      start = known.over(start, step.tokens)
    run = Run(network, state, cache, step, draw)
    steps = self.passes(math.prod(shape[1:]))
    logits = jax.eval_shape(lambda: self.look(run, start, 0, steps))
    blank = jnp.zeros(logits.shape, logits.dtype)

    def advance(carry, i):
      values, logits, changed, memory = carry
      logits = jax.lax.cond(
        changed & jnp.any(values == _MASKED),
        lambda values, _: self.look(run, values, i, steps),
        lambda _, logits: logits,
        values,
        logits,
      )
      flat = values.reshape(len(values), -1)
      new, memory = self.unmask(flat, logits, draw.fold(i), i, memory)
      new = new.reshape(values.shape)
      changed = jnp.any(new != values) | (not self.reuses)
      return (new, logits, changed, memory), values

    carry = start, blank, jnp.array(True), self.memory(logits)
    (values, *_), given = jax.lax.scan(advance, carry, jnp.arange(steps))
    state = model.push(state, step, values)
    cache = self.committed(network, state, cache, step)
    return state, cache, (given, given == _MASKED)

  @property
  def reuses(self) -> bool:
    """Whether the network is not called where nothing changed."""
    guidance = self.guidance
    if isinstance(guidance, Constant):
      return guidance.until is None
    return not guidance.active

  def look(self, run: Run, values: jax.Array, i: Any, steps: int) -> jax.Array:
    """The guided logits (b, n, v) of a pass over values (b, e, ...)."""
    network, model = run.network, run.network.model
    slots, readout = slots_of(run, values), run.step.readout
    scale = lambda level: self.guidance(i, steps, level)
    z, merge, _ = network.look(slots, readout, scale, run.cache, False)
    logits = merge(model.field(z, model.query(slots, readout, i, steps)))
    return logits.reshape(len(values), -1, logits.shape[-1])


@dataclasses.dataclass(frozen=True)
class Timed(Absorbing):
  """Base of ancestral sampling: whether a token is unmasked, then as which id.

  In a step from time t to s, every masked token is unmasked with the probability
  1 - s / t. The samples have the distribution of the model for many steps: tokens of
  the same step are independent.

  Attributes:
    steps: number of time steps.
  """

  steps: Few = 64

  @property
  @abc.abstractmethod
  def stays(self) -> np.ndarray:
    """(steps,) probabilities s / t that a masked token stays masked."""

  def passes(self, tokens):
    return self.steps

  def unmask(self, values, logits, draw, i, memory):
    uniform = draw.uniform('sampler/unmask', values.shape[1:])
    leaves = uniform < 1 - jnp.asarray(self.stays)[i]
    ids = self.logits_filter(logits, draw)
    return jnp.where((values == _MASKED) & leaves, ids, values), memory


@dataclasses.dataclass(frozen=True)
class Ancestral(Timed):
  """Ancestral sampling in even steps of time (SMDM), see `Timed`.

  Source: arXiv 2410.18514; ML-GSAI/SMDM, eval/gen_model_answer.py, 'origin'.

  Attributes:
    last: time before the last tokens are unmasked.
  """

  last: Below1 = 1e-5

  @property
  def stays(self):
    return stay_shares(self.steps, self.last)


@dataclasses.dataclass(frozen=True)
class AncestralAtOnce(Timed):
  """The same in a single draw over the ids and the mask (MDLM, BD3-LM).

  With many steps an id has a small probability in each, so `logits_filter` should be
  `process.logits.Precise`: Gumbel noise of 32 bits never draws unlikely ids.

  Source: arXiv 2503.09573; kuleshov-group/bd3lms, diffusion.py.
  """

  def unmask(self, values, logits, draw, i, memory):
    if self.logits_filter.temperature == 0:
      return super().unmask(values, logits, draw, i, memory)
    stay = jnp.asarray(self.stays, jnp.float32)[i]
    log_p = jax.nn.log_softmax(self.logits_filter.filter(logits), -1)
    log_p = log_p + jnp.log1p(-stay)
    mask = jnp.full(log_p[..., :1].shape, jnp.log(stay))
    # The probability of the mask is 0 in the last step.
    mask = jnp.maximum(mask, jnp.finfo(jnp.float32).min)
    both = jnp.concatenate([log_p, mask], -1)
    ids = self.logits_filter.pick(both, draw)
    ids = jnp.where(ids == logits.shape[-1], _MASKED, ids)
    return jnp.where(values == _MASKED, ids, values), memory

  @property
  def stays(self):
    return uneven_stay_shares(self.steps)


@dataclasses.dataclass(frozen=True)
class AncestralSureFirst(Ancestral):
  """The same number of tokens, those of the highest probability (SMDM).

  A step unmasks floor(m (1 - s / t)) of m masked tokens: those whose ids have the
  highest probabilities before `logits_filter`. It has another distribution than the
  model.

  Source: ML-GSAI/SMDM, eval/gen_model_answer.py, 'greddy'. Differs: there the rows
    of a batch share one ranking.
  """

  def unmask(self, values, logits, draw, i, memory):
    masked, ids = values == _MASKED, self.logits_filter(logits, draw)
    p = jax.nn.softmax(logits, -1)
    sure = jnp.take_along_axis(p, ids[..., None], -1)[..., 0]
    sure = jnp.where(masked, sure, -1.0)
    leaves = 1 - jnp.asarray(self.stays)[i]
    count = jnp.floor(masked.sum(1) * leaves)
    rank = jnp.argsort(jnp.argsort(-sure, 1, stable=True), 1)
    return jnp.where(masked & (rank < count[:, None]), ids, values), memory


@dataclasses.dataclass(frozen=True)
class FirstHitting(Absorbing):
  """First-hitting sampler: one call of the network per token, in a random order.

  It samples the times at which ancestral sampling of infinitely many steps would
  unmask a token, so its samples have exactly the distribution of the model. Several
  tokens per call are an approximation, as few steps of ancestral sampling are.

  Source: arXiv 2409.02908; kuleshov-group/bd3lms, diffusion.py.

  Attributes:
    at_once: tokens that are unmasked by one call.
  """

  at_once: Few = 1

  def passes(self, tokens):
    return -(-tokens // self.at_once)

  def unmask(self, values, logits, draw, i, memory):
    for k in range(self.at_once):
      own = draw.fold(k) if self.at_once > 1 else draw
      at, some = self.next(values, own)
      ids = self.choose(logits, at, own)
      here = (jnp.arange(values.shape[1]) == at[:, None]) & some[:, None]
      values = jnp.where(here, ids, values)
    return values, memory

  def choose(self, logits: jax.Array, at: jax.Array, draw: Draw) -> jax.Array:
    """(b, 1) ids of the tokens `at` (b,)."""
    own = jnp.take_along_axis(logits, at[:, None, None], 1)
    return self.logits_filter(own, draw)

  def next(self, values: jax.Array, draw: Draw) -> tuple[jax.Array, jax.Array]:
    """A random masked token (b,) of every example, and whether there is one."""
    masked = values == _MASKED
    left = masked.sum(1)
    uniform = draw.uniform('sampler/token')
    rank = jnp.minimum(jnp.floor(uniform * left), left - 1)
    found = masked & (jnp.cumsum(masked, 1) - 1 == rank[:, None])
    return jnp.argmax(found, 1), left > 0


@dataclasses.dataclass(frozen=True)
class ExtrapolatedFirstHitting(FirstHitting):
  """First hitting of several tokens per call, of second order.

  The probabilities of a token are those at its own hitting time: extrapolated
  linearly in time from the last two calls, cut off at 0. With one token per call the
  first order is exact, so use it.

  Source: arXiv 2409.02908, which names high-order variants. Differs: its formulas
    were not available, and the extrapolation here is not compared with it.
  """

  at_once: Few = 2

  def memory(self, logits):
    rows = logits.shape[0]
    log_p = jnp.zeros(logits.shape, jnp.float32)
    return jnp.ones(rows), jnp.ones(rows), log_p

  def unmask(self, values, logits, draw, i, memory):
    now, before, old = memory
    log_p = jax.nn.log_softmax(self.logits_filter.filter(logits), -1)
    time = now
    for k in range(self.at_once):
      own = draw.fold(k)
      at, some = self.next(values, own)
      left = (values == _MASKED).sum(1)
      time = hitting_time(time, left, own.uniform('sampler/time'))
      step = jnp.where(i > 0, (now - time) / jnp.maximum(before - now, 1e-6), 0)
      pick = lambda x, at=at: jnp.take_along_axis(x, at[:, None, None], 1)
      new, last = jnp.exp(pick(log_p)), jnp.exp(pick(old))
      p = new + jnp.minimum(step, 1)[:, None, None] * (new - last)
      p = jnp.log(jnp.maximum(p, 1e-30))
      ids = self.logits_filter.pick(p, own)
      here = (jnp.arange(values.shape[1]) == at[:, None]) & some[:, None]
      values = jnp.where(here, ids, values)
    return values, (time, now, log_p)


def network_calls(given: jax.Array, reuses: bool = True) -> jax.Array:
  """Calls of the network in a trace of `Absorbing`, () int32.

  Args:
    given: (steps, b, ...) ids that entered every step.
    reuses: see `Absorbing`.
  """
  axes = tuple(range(1, given.ndim))
  called = jnp.any(given == _MASKED, axes)
  if reuses:
    called &= jnp.any(given != jnp.roll(given, 1, 0), axes).at[0].set(True)
  return jnp.sum(called)
