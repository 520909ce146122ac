"""Latents in levels: a KL tokenizer that is quantised after its training."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.process.quantiles import centres
from arvision.random import Draw
from arvision.ranges import Count, Positive
from arvision.structs import Tokens, TokenSpec
from arvision.tokenizers.kl import KL


@functools.cache
def _values(levels, low, high, span):
  """The latents that levels stand for, and the middles between them."""
  values = (centres(levels, span) / span + 1) / 2 * (high - low) + low
  middles = (values[1:] + values[:-1]) / 2
  return values.astype(np.float32), middles.astype(np.float32)


class Levels(KL, kw_only=True):
  """A KL tokenizer whose latents are quantised, channel by channel.

  Tokens are numbers of levels, (b, t, c) int32. The levels lie where a normal
  number is equally often, and they are no parameters: any trained KL tokenizer
  serves as it is.

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
  def spec(self) -> TokenSpec:
    return dataclasses.replace(super().spec, size=self.levels)

  def quantize(self, latent: jax.Array) -> jax.Array:
    """Scaled latents (...) -> (...) int32 the nearest levels."""
    _, middles = self._values()
    return jnp.searchsorted(jnp.asarray(middles), latent).astype(jnp.int32)

  def embed(self, values: jax.Array) -> jax.Array:
    """Levels (...) int32 -> (...) float32 scaled latents."""
    return jnp.asarray(self._values()[0])[values]

  def encode(self, image: jax.Array) -> Tokens:
    """The levels of the means."""
    return Tokens(self.quantize(jnp.asarray(super().encode(image).values)))

  def visit(self, stored: jax.Array, draw: Draw) -> Tokens:
    latent = super().visit(stored, draw).values
    return Tokens(self.quantize(jnp.asarray(latent)))

  def latent(self, tokens: Tokens) -> jax.Array:
    return super().latent(Tokens(self.embed(jnp.asarray(tokens.values))))

  def _values(self):
    return _values(self.levels, self.low, self.high, self.span)
