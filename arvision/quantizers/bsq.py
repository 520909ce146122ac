"""Binary spherical quantisation: signs of a latent on the unit sphere."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.metrics import Mean
from arvision.quantizers.base import Losses, Quantized, Quantizer
from arvision.quantizers.lookup import normalized
from arvision.random import Draw
from arvision.ranges import AtLeast0, Few, Positive, Width


class BSQ(Quantizer, kw_only=True):
  """Bits: 1 where a channel is positive; codes are corners of the unit sphere.

  A token has one bit per channel. Its vector is (2 bit - 1) / sqrt(channels).
  The bits may be joined to one id or several, the first channel highest.
  Losses are those of latents that are projected onto the unit sphere.

  Source: Zhao et al., arXiv 2406.07548; FoundationVision/Infinity, whose weights
    these are.

  Attributes:
    channels: number of bits.
    commitment: weight of the pull on the encoder towards its codes.
    entropy: weight of the entropy of a bit minus the entropy of its mean over
      the batch, summed over the bits.
    inverse_temperature: of the probability of a bit.
    ids: ids of a token, which divide the bits; None: every bit is one.
  """

  channels: Width
  commitment: AtLeast0 = 0.25
  entropy: AtLeast0 = 0.1
  inverse_temperature: Positive = 100.0
  ids: Few | None = None

  adjustable: ClassVar[tuple[str, ...]] = ('ids',)

  @property
  def size(self) -> int:
    bits, rest = divmod(self.channels, self.parts)
    if rest or bits > 30:
      raise ValueError(
        f'config.tokenizer.quantizer.ids={self.ids}: wanted a divisor of '
        f'{self.channels} channels, and at most 30 bits for an id'
      )
    return 2**bits

  @property
  def parts(self) -> int:
    return self.ids or self.channels

  @property
  def radices(self) -> tuple[int, ...]:
    return (2,) * self.channels

  def __call__(self, latent: jax.Array, draw: Draw | None = None) -> Quantized:
    return super().__call__(normalized(latent), draw)

  def pull(self, latent: jax.Array, vectors: jax.Array) -> Losses:
    square = (jax.lax.stop_gradient(vectors) - latent) ** 2
    return {'commitment': self.commitment * jnp.mean(square)}

  def spread(self, latent: jax.Array, draw: Draw | None = None) -> Losses:
    del draw
    if not self.entropy:
      return {}
    # Codes are corners of a cube, so bits are independent given the latent:
    # softmax(t z.c) over all codes is a product of sigmoids.
    logits = 2 * self.inverse_temperature * latent * self.channels**-0.5
    mean = jnp.mean(jax.nn.sigmoid(logits).reshape(-1, self.channels), 0)
    each = jnp.sum(_entropy(logits), -1)
    loss = jnp.mean(each) - jnp.sum(_entropy(_logit(mean)))
    return {'entropy': self.entropy * loss}

  def metrics(self, latent: jax.Array) -> dict[str, Mean]:
    return {'bits_set': Mean.of(latent > 0)}

  def quantize(self, latent: jax.Array) -> jax.Array:
    bits = (latent > 0).astype(jnp.int32)
    bits = bits.reshape(*latent.shape[:-1], self.parts, -1)
    values = jnp.sum(bits << self._shifts, -1)
    return values if self.parts > 1 else values[..., 0]

  def embed(self, values: jax.Array) -> jax.Array:
    values = values if self.parts > 1 else values[..., None]
    bits = (values[..., None] >> self._shifts) & 1
    bits = bits.reshape(*values.shape[:-1], self.channels)
    return (2.0 * bits - 1) * self.channels**-0.5

  @property
  def _shifts(self):
    return np.arange(self.channels // self.parts)[::-1]


def _entropy(logits):
  """Entropy in nats of bits with these logits."""
  p = jax.nn.sigmoid(logits)
  return p * jax.nn.softplus(-logits) + (1 - p) * jax.nn.softplus(logits)


def _logit(p, edge=1e-6):
  p = jnp.clip(p, edge, 1 - edge)
  return jnp.log(p) - jnp.log1p(-p)
