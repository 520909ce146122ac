"""How an id is chosen from logits: temperature, top-k, top-p."""

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
  """Filters in the order of VAR and LlamaGen, then one draw.

  Attributes:
    temperature: divides the logits; 0 takes the best id.
    top_k: ids with logits below the k-th best are dropped, ties stay; 0 = off.
    top_p: smallest set of best ids whose probability exceeds p; 1 or 0 = off.
  """

  temperature: Temperature = 1.0
  top_k: Natural = 0
  top_p: Share = 1.0

  def filter(self, logits: jax.Array) -> jax.Array:
    """(..., v) float32 logits with the dropped ids at the lowest value."""
    logits = logits.astype(jnp.float32)
    if self.temperature not in (0.0, 1.0):
      logits = logits / self.temperature
    v = logits.shape[-1]
    by_rank, by_mass = 0 < self.top_k < v, 0 < self.top_p < 1
    if not (by_rank or by_mass):
      return logits
    rank = _rank(logits)
    cut = jnp.zeros((*rank.shape[:-1], 1), rank.dtype)
    if by_rank:
      cut = _highest(lambda x: _count(rank >= x) >= self.top_k, rank)
    if by_mass:
      kept = jnp.where(rank >= cut, logits, _HIDDEN)
      mass = jax.nn.softmax(kept, axis=-1)
      cut = _highest(
        lambda x: _sum(jnp.where(rank < x, mass, 0)) <= 1 - self.top_p, rank
      )
    return jnp.where(rank < cut, _HIDDEN, logits)

  def __call__(self, logits: jax.Array, draw: Draw) -> jax.Array:
    """(b, ..., v) logits -> (b, ...) int32 ids."""
    if self.temperature == 0:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return draw.categorical('head/choice', self.filter(logits))


# Both filters ask for the highest value that is true of a threshold. It is found
# bit by bit, in 32 passes over the logits. On two cores of a CPU to sort 4,096 of
# them takes six times as long; on other devices it was not measured.


def _rank(x):
  """uint32 in the order of float32 numbers; equal numbers have equal ranks."""
  # The bits of 0.0 and -0.0 differ. XLA would drop `x + 0`.
  bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.int32)
  ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
  return jax.lax.bitcast_convert_type(ordered, jnp.uint32) ^ _SIGN


def _highest(true, rank):
  """The highest (..., 1) uint32 of which `true` is; the best rank at most."""

  def decide(i, found):
    more = found | (_SIGN >> i.astype(jnp.uint32))
    return jnp.where(true(more), more, found)

  found = jnp.zeros((*rank.shape[:-1], 1), rank.dtype)
  found = jax.lax.fori_loop(0, 32, decide, found)
  return jnp.minimum(found, jnp.max(rank, axis=-1, keepdims=True))


def _count(x):
  return jnp.sum(x, axis=-1, keepdims=True, dtype=jnp.int32)


def _sum(x):
  return jnp.sum(x, axis=-1, keepdims=True)
