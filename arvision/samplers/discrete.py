"""Ancestral sampling of discrete diffusion (VQ-Diffusion)."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from arvision.errors import ConfigError
from arvision.heads.discrete import log_probabilities
from arvision.process.transitions import LEAST, MaskAndReplace
from arvision.ranges import AtLeast0, Count, Few, Natural
from arvision.samplers.base import Sampler, over_all


@dataclasses.dataclass(frozen=True)
class Reverse(Sampler):
  """Base of samplers that follow a discrete diffusion from noise to data.

  Every call of the network predicts the clean ids x_0 from the noised ones; a
  subclass says which calls there are and what follows from them. The probabilities
  of x_0 are guided, normalised, and then filtered (truncated); those of filtered
  ids are gone and the others stay as they are. Known tokens are shown clean.
  """

  fills = True
  # Whether it needs the process of a feed of discrete diffusion.
  reverses: ClassVar[bool] = True
  sites = ('field',)

  @abc.abstractmethod
  def calls(self, process: MaskAndReplace, tokens: int) -> np.ndarray:
    """(calls, k) int32 settings of every call; the first is its time.

    Args:
      process: the transition matrices.
      tokens: of an image.
    """

  @abc.abstractmethod
  def advance(
    self,
    process: MaskAndReplace,
    x: jax.Array,
    log_x0: jax.Array,
    call: Any,
    draw: Any,
  ) -> jax.Array:
    """The ids (b, t) int32 after a call, `process.mask` where masked.

    Args:
      process: the transition matrices.
      x: (b, t) ids before it.
      log_x0: (b, t, ids) float32 guided and filtered log probabilities of x_0.
      call: its row of `calls`.
      draw: keys of this call.
    """

  def within(self, network, state, cache, step, draw, known, plan):
    """Samples the tokens of a layout of one entity.

    The trace is (calls, b, t) int32, the ids that entered every call.
    """
    model = network.model
    if model.layout.steps > 1:
      raise ValueError(
        f'config.sampler ({type(self).__name__}) samples all tokens at once; '
        'wanted a config.layout of one step, layouts.grid.whole'
      )
    process, size = model.module.feed.process, len(step.tokens)
    calls = self.calls(process, size)
    x = jnp.full((draw.batch, size), process.mask, jnp.int32)
    if not process.starts_masked:
      uniform = draw.uniform('sampler/start', (size,))
      x = jnp.int32(uniform * process.vocab_size)
      x = jnp.minimum(x, process.vocab_size - 1)

    def kept(x):
      return x if known is None else known.over(x, step.tokens)

    def advance(x, now):
      i, call = now
      log_x0 = self.predicted(network, state, step, x, call[0], i, len(calls))
      new = self.advance(process, x, log_x0, call, draw.fold(i))
      return kept(new), x

    numbers = jnp.arange(len(calls)), jnp.asarray(calls)
    x, trace = jax.lax.scan(advance, kept(x), numbers)
    x = jnp.minimum(x, process.vocab_size - 1)
    return model.push(state, step, x), cache, trace

  def predicted(
    self,
    network: Any,
    state: Any,
    step: Any,
    x: jax.Array,
    time: Any,
    i: Any,
    count: int,
  ) -> jax.Array:
    """(b, t, ids) float32 guided and filtered log probabilities of x_0.

    Args:
      network: the model under guidance.
      state: of the feed.
      step: of the layout.
      x: (b, t) int32 noised ids.
      time: () of the diffusion.
      i: () number of the call.
      count: static number of calls.
    """
    model = network.model
    process = model.module.feed.process
    masked = x == process.mask
    given = model.push(state, step, jnp.where(masked, 0, x))
    everywhere = over_all(masked, step, model.layout.tokens)
    slots = model.feed_slots(given, step, everywhere)
    level = jnp.full((1, 1), process.level(time), jnp.float32)
    slots = slots.replace(level=level)
    scale = lambda level: self.guidance(i, count, level)
    z, merge, _ = network.look(slots, step.readout, scale, None, False)
    logits = merge(model.field(z, model.query(slots, step.readout)))
    plain = dataclasses.replace(self.logits_filter, top_k=0, top_p=1.0)
    log_x0 = log_probabilities(plain.filter(logits))
    whole = dataclasses.replace(self.logits_filter, temperature=1.0)
    return jnp.maximum(whole.filter(log_x0), LEAST)

  def choose(self, log_p: jax.Array, draw: Any) -> jax.Array:
    """(b, t) int32 samples of log probabilities (b, t, v), up to a factor."""
    if self.logits_filter.temperature > 0:
      log_p = log_p + draw.gumbel('sampler/ids', log_p.shape[1:])
    return jnp.argmax(log_p, -1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Ancestral(Reverse):
  """Samples x_(n-1) from its posterior, time by time.

  With a stride of s every s-th time is visited, and the posterior is that of time
  n - s + 1 (fast sampling).

  Source: arXiv 2111.14822; microsoft/VQ-Diffusion, diffusion_transformer.py,
    `sample` and `sample_fast`.

  Attributes:
    stride: times from one call to the next.
  """

  stride: Few = 1

  def calls(self, process, tokens):
    times = [*range(process.steps, 0, -self.stride)]
    if times[-1] != 1:
      times.append(1)
    # As published: the last times are not shortened below the first one.
    back = [n - self.stride + 1 if n > self.stride else n for n in times]
    return np.array([times, back], np.int32).T

  def advance(self, process, x, log_x0, call, draw):
    return self.choose(process.posterior(log_x0, x, call[1]), draw)


@dataclasses.dataclass(frozen=True)
class HighQuality(Reverse):
  """Unmasks a fixed number of tokens per time, whose ids then stay.

  The masked tokens that a call decides on are sampled without replacement, with
  equal chances or in proportion to their purity, the largest probability of their
  x_0 (the purity prior). At the last time all others follow from the posterior.

  Source: arXiv 2205.16007 (Improved VQ-Diffusion); microsoft/VQ-Diffusion,
    `p_sample` with prior_rule 1 and 2.

  Differs: any number of tokens and times; with known tokens the last calls may
    find no masked one.

  Attributes:
    score: 'purity', or 'equal' chances for all masked tokens.
    sharpen: log p of x_0 is multiplied by 1 + sharpen * purity; not read for
      equal chances.
    counts: tokens of every time but the last, from noise to data; (): equal ones.
    most: largest number of tokens of a call; a time may have several calls.
  """

  score: Literal['purity', 'equal'] = 'purity'
  sharpen: AtLeast0 = 1.0
  counts: tuple[Natural, ...] = ()
  most: Count = 1024

  def calls(self, process, tokens):
    if not process.starts_masked:
      raise ConfigError(
        f'config.feed.process.masked={process.masked}: HighQuality unmasks '
        'tokens; use samplers.discrete.Ancestral where noise is not masked'
      )
    steps = process.steps
    ends = [tokens * i // steps for i in range(steps)]
    counts = self.counts or tuple(np.diff(ends))
    if len(counts) != steps - 1 or sum(counts) > tokens:
      raise ConfigError(
        f'config.sampler.counts has {len(counts)} entries with the sum '
        f'{sum(counts)}; wanted {steps - 1}, of at most {tokens} tokens'
      )
    found = []
    for i, left in enumerate(counts):
      while left > 0:
        count = min(left, self.most)
        if left - count == 1:
          count = left
        found.append((steps - i, count))
        left -= count
    return np.array([*found, (1, 0)], np.int32)

  def advance(self, process, x, log_x0, call, draw):
    time, count = call
    masked = x == process.mask
    purity = jnp.exp(jnp.max(log_x0, -1))
    purity = purity / (jnp.max(purity, -1, keepdims=True) + 1e-10)
    none = jnp.full((*x.shape, 1), LEAST)
    log_p = jnp.concatenate([log_x0, none], -1)
    score = jnp.zeros(x.shape)
    if self.score == 'purity':
      score = jnp.log(purity)
      if self.sharpen:
        sharp = (1 + self.sharpen * purity)[..., None] * log_p
        log_p = log_probabilities(sharp)
    noise = draw.gumbel('sampler/places', x.shape[1:])
    rank = jnp.where(masked, score + noise, -jnp.inf)
    order = jnp.argsort(jnp.argsort(-rank, -1, stable=True), -1)
    last = process.posterior(log_x0, x, time)
    found = self.choose(jnp.where(time > 1, log_p, last), draw)
    here = (masked & (order < count)) | (time == 1)
    return jnp.where(here, found, x)
