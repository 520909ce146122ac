"""How an id is chosen from logits: temperature, top-k, top-p."""

import dataclasses

import jax
import jax.numpy as jnp

from arvision.structs import Draw

_HIDDEN = jnp.finfo(jnp.float32).min


@dataclasses.dataclass(frozen=True)
class Choice:
  """Filters in the order of VAR and LlamaGen, then one draw.

  Attributes:
    temperature: divides the logits; 0 takes the best id.
    top_k: ids with logits below the k-th best are dropped, ties stay; 0 = off.
    top_p: smallest set of best ids whose probability exceeds p; 1 or 0 = off.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if self.temperature < 0 or self.top_k < 0 or not 0 <= self.top_p <= 1:
      raise ValueError(
        'wanted temperature >= 0, top_k >= 0 and 0 <= top_p <= 1, got '
        f'{self.temperature}, {self.top_k}, {self.top_p}'
      )

  def filter(self, logits: jax.Array) -> jax.Array:
    """(..., v) float32 logits with the dropped ids at the lowest value."""
    logits = logits.astype(jnp.float32)
    if self.temperature not in (0.0, 1.0):
      logits = logits / self.temperature
    v = logits.shape[-1]
    by_rank, by_mass = 0 < self.top_k < v, 0 < self.top_p < 1
    if by_mass:
      # Sorting is most of the work: once serves both filters.
      ascending = jnp.sort(logits, axis=-1)
      if by_rank:
        kth = ascending[..., v - self.top_k, None]
        ascending = jnp.where(ascending < kth, _HIDDEN, ascending)
      cut = _nucleus(ascending, self.top_p)
    elif by_rank:
      cut = jax.lax.top_k(logits, self.top_k)[0][..., -1:]
    if by_rank or by_mass:
      logits = jnp.where(logits < cut, _HIDDEN, logits)
    return logits

  def __call__(self, logits: jax.Array, draw: Draw) -> jax.Array:
    """(b, ..., v) logits -> (b, ...) int32 ids."""
    if self.temperature == 0:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return draw.categorical('choice', self.filter(logits))


def _nucleus(ascending, p):
  """The lowest logit whose ascending cumulative probability is above 1 - p."""
  below = jnp.cumsum(jax.nn.softmax(ascending, axis=-1), axis=-1)
  # The best id always stays; the first one above 1 - p is the cut.
  kept = (below > 1 - p).at[..., -1].set(True)
  return jnp.min(jnp.where(kept, ascending, jnp.inf), axis=-1, keepdims=True)
