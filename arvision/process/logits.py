"""Sampling from logits: temperature, top-k, top-p."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.random import Draw
from arvision.ranges import Natural, Share, Temperature

_HIDDEN = jnp.finfo(jnp.float32).min
_SIGN = np.uint32(1 << 31)


@dataclasses.dataclass(frozen=True)
class LogitsFilter(Checked):
  """Temperature, top-k and top-p, in the order of VAR and LlamaGen.

  Attributes:
    temperature: divides the logits; 0 = argmax.
    top_k: drops ids with logits below the k-th best, keeps ties; 0 = off.
    top_p: keeps the smallest set of best ids whose probability exceeds p; 1 or
      0 = off.
  """

  temperature: Temperature = 1.0
  top_k: Natural = 0
  top_p: Share = 1.0

  def filter(self, logits: jax.Array) -> jax.Array:
    """(..., v) float32 logits with dropped ids at the lowest float32."""
    logits = logits.astype(jnp.float32)
    if self.temperature not in (0.0, 1.0):
      logits = logits / self.temperature
    v = logits.shape[-1]
    by_rank, by_mass = 0 < self.top_k < v, 0 < self.top_p < 1
    if not (by_rank or by_mass):
      return logits
    rank, kept = _rank(logits), jnp.ones(logits.shape, bool)
    if by_rank:
      kept = _best(lambda best: _count(best) >= self.top_k, rank)
    if by_mass:
      mass = jax.nn.softmax(jnp.where(kept, logits, _HIDDEN), axis=-1)
      rest = lambda best: jnp.where(best, 0, mass)
      kept &= _best(lambda best: _sum(rest(best)) <= 1 - self.top_p, rank)
    return jnp.where(kept, logits, _HIDDEN)

  def __call__(self, logits: jax.Array, draw: Draw) -> jax.Array:
    """(b, ..., v) logits -> (b, ...) int32 ids."""
    greedy = self.temperature == 0
    return self.pick(logits if greedy else self.filter(logits), draw)

  def pick(self, filtered: jax.Array, draw: Draw) -> jax.Array:
    """(b, ..., v) filtered logits -> (b, ...) int32 ids."""
    if self.temperature == 0:
      return jnp.argmax(filtered, axis=-1).astype(jnp.int32)
    return draw.categorical('head/choice', filtered)


@dataclasses.dataclass(frozen=True)
class Precise(LogitsFilter):
  """`LogitsFilter` that draws ids with 64 random bits.

  `LogitsFilter` adds Gumbel noise of 23 random bits, which ends at 15.9. So ids of
  less than about 1e-7 of the probability of the likeliest are drawn too rarely or
  never, which is a lower temperature. Here the noise ends at 45.

  Source: arXiv 2409.02908, which draws in float64. Differs: the arithmetic is
    float32, of numbers whose small values are as exact as the large ones.
  """

  def pick(self, filtered, draw):
    if self.temperature == 0:
      return super().pick(filtered, draw)
    noise = draw.exponential('head/choice', filtered.shape[1:])
    return jnp.argmax(filtered - jnp.log(noise), -1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class PreciseWithin(Precise):
  """The same, with a top-p that no kept set exceeds, but for the best id.

  Source: kuleshov-group/bd3lms, diffusion.py, `_nucleus_sample`.
  """

  def filter(self, logits):
    logits = LogitsFilter(self.temperature, self.top_k).filter(logits)
    if not 0 < self.top_p < 1:
      return logits
    mass = jax.nn.softmax(logits, -1)
    best = -jnp.sort(-mass, -1)
    count = jnp.sum(jnp.cumsum(best, -1) <= self.top_p, -1, keepdims=True)
    least = jnp.take_along_axis(best, jnp.maximum(count - 1, 0), -1)
    return jnp.where(mass >= least, logits, _HIDDEN)


# Both filters keep the fewest best ids that satisfy a condition. A binary
# search finds the threshold in 32 passes over the logits. On two CPU cores,
# sorting 4,096 logits takes six times as long; other devices were not measured.


def _rank(x):
  """Maps float32 to uint32 in the same order; equal numbers get equal ranks."""
  # The bits of 0.0 and -0.0 differ. XLA would drop `x + 0`.
  bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.int32)
  ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
  return jax.lax.bitcast_convert_type(ordered, jnp.uint32) ^ _SIGN


def _best(enough, rank):
  """(..., v) bool: the fewest best ids, at least one, with `enough(ids)`."""

  def decide(i, carry):
    found, kept = carry
    more = found | (_SIGN >> i.astype(jnp.uint32))
    best = rank >= more
    fewer = enough(best) & jnp.any(best, axis=-1, keepdims=True)
    return jnp.where(fewer, more, found), jnp.where(fewer, best, kept)

  # The loop carries the kept ids. A comparison with the threshold after the
  # loop could use logits that XLA recomputes with another last bit.
  found = jnp.zeros((*rank.shape[:-1], 1), rank.dtype)
  return jax.lax.fori_loop(0, 32, decide, (found, rank >= 0))[1]


def _count(x):
  return jnp.sum(x, axis=-1, keepdims=True, dtype=jnp.int32)


def _sum(x):
  return jnp.sum(x, axis=-1, keepdims=True)
