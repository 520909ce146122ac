"""Bernoulli quantisation: bits that are sampled with their probabilities."""

import jax
import jax.numpy as jnp
import numpy as np

from arvision.metrics import Mean
from arvision.quantizers.base import (
  Losses,
  Quantized,
  Quantizer,
  straight_through,
)
from arvision.random import Draw
from arvision.ranges import AtLeast0, Few, Width


class Bernoulli(Quantizer, kw_only=True):
  """Bits with the probability sigmoid(moment); their vectors are 0 and 1.

  Training samples the bits ('tokenizer/bits', uniform numbers); otherwise a bit
  is 1 where its probability exceeds a half. A token is one id or several, each
  of as many bits, the first channel highest.

  Source: Wang et al., arXiv 2303.12202; Pepper-lll/LMforImageGeneration (arXiv
    2410.16257), bae/binaryae.py.

  Attributes:
    channels: number of bits.
    ids: ids of a token; they divide the bits.
    deterministic: whether training does not sample either.
    signed: whether tanh replaces the sigmoid; the vectors are then -1 and 1.
    code: weight of the mean of s (1 - s), s the sigmoid of a latent. It applies
      to what went through a sigmoid already, as published.
  """

  channels: Width
  ids: Few = 1
  deterministic: bool = False
  signed: bool = False
  code: AtLeast0 = 0.0

  adjustable = ('ids',)

  @property
  def size(self) -> int:
    if self.channels % self.ids:
      raise ValueError(
        f'config.tokenizer.quantizer.ids={self.ids} does not divide '
        f'{self.channels} channels'
      )
    return 2 ** (self.channels // self.ids)

  @property
  def parts(self) -> int:
    return self.ids

  @property
  def radices(self) -> tuple[int, ...]:
    return (2,) * self.channels

  def __call__(self, latent: jax.Array, draw: Draw | None = None) -> Quantized:
    bits = latent > self._middle
    if draw is not None and not self.deterministic:
      drawn = draw.uniform('tokenizer/bits', latent.shape[1:])
      bits = drawn < ((latent + 1) / 2 if self.signed else latent)
    values = self._ids(bits)
    return Quantized(
      values,
      straight_through(latent, self.embed(values)),
      self.spread(latent),
      latent,
      self.metrics(latent),
    )

  def spread(self, latent: jax.Array, draw: Draw | None = None) -> Losses:
    del draw
    if not self.code:
      return {}
    s = jax.nn.sigmoid(latent)
    return {'code': self.code * jnp.mean(s * (1 - s))}

  def metrics(self, latent: jax.Array) -> dict[str, Mean]:
    return {'bits_set': Mean.of(latent > self._middle)}

  def latent(self, moments: jax.Array, draw: Draw | None = None) -> jax.Array:
    """Probabilities of the bits; if signed, from -1 to 1."""
    squash = jnp.tanh if self.signed else jax.nn.sigmoid
    return squash(moments.astype(jnp.float32))

  def quantize(self, latent: jax.Array) -> jax.Array:
    return self._ids(latent > self._middle)

  def embed(self, values: jax.Array) -> jax.Array:
    values = values if self.ids > 1 else values[..., None]
    bits = (values[..., None] >> self._shifts) & 1
    bits = bits.reshape(*values.shape[:-1], self.channels).astype(jnp.float32)
    return 2 * bits - 1 if self.signed else bits

  @property
  def _middle(self):
    return 0.0 if self.signed else 0.5

  @property
  def _shifts(self):
    return np.arange(self.channels // self.ids)[::-1]

  def _ids(self, bits):
    bits = bits.reshape(*bits.shape[:-1], self.ids, -1).astype(jnp.int32)
    values = jnp.sum(bits << self._shifts, -1)
    return values if self.ids > 1 else values[..., 0]
