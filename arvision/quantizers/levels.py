"""Latents in levels: a KL tokenizer that is quantised after its training."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.process.quantiles import centres
from arvision.quantizers.kl import KL
from arvision.ranges import Count, Positive


@functools.cache
def _values(levels, low, high, span):
  """The latents that levels stand for, and the middles between them."""
  values = (centres(levels, span) / span + 1) / 2 * (high - low) + low
  middles = (values[1:] + values[:-1]) / 2
  return values.astype(np.float32), middles.astype(np.float32)


class Levels(KL, kw_only=True):
  """The latents of a KL tokenizer, quantised channel by channel.

  A token is the number of a level for every channel. Levels are quantiles of the
  normal distribution and no parameters: any trained KL tokenizer serves as it is.

  Source: arXiv 2503.16430; YuqingWang1029/TokenBridge.

  Attributes:
    levels: of every channel.
    low, high: of scaled latents; what lies beyond gets the first or last level.
    span: the standard deviations that low and high stand for.
  """

  levels: Count = 64
  low: float = -5.0
  high: float = 5.0
  span: Positive = 3.0

  adjustable: ClassVar[tuple[str, ...]] = (
    'type',
    'scale',
    'shift',
    'levels',
    'low',
    'high',
    'span',
  )

  @property
  def size(self) -> int:
    return self.levels

  def quantize(self, latent: jax.Array) -> jax.Array:
    _, middles = self._values()
    return jnp.searchsorted(jnp.asarray(middles), latent).astype(jnp.int32)

  def embed(self, values: jax.Array) -> jax.Array:
    return jnp.asarray(self._values()[0])[values]

  def _values(self):
    return _values(self.levels, self.low, self.high, self.span)
