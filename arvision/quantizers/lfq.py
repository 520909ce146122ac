"""Lookup-free quantisation: every channel becomes its sign (MAGVIT-v2, MaskBit)."""

import jax
import jax.numpy as jnp
import numpy as np

from arvision.metrics import Mean
from arvision.quantizers.base import Losses, Quantizer
from arvision.quantizers.lookup import distances, entropy_loss
from arvision.ranges import AtLeast0, Few, Width


class LFQ(Quantizer, kw_only=True):
  """Bits: 1 where a channel is positive; their vectors are -1 and 1.

  A token is one id or several, each of as many bits, the first channel lowest.

  Source: arXiv 2310.05737; markweberdev/maskbit (arXiv 2409.16211).

  Attributes:
    channels: number of bits.
    ids: ids of a token; they divide the bits.
    commitment: weight of the pull on the encoder towards its signs.
    entropy: weight of `lookup.entropy_loss` over all combinations of bits.
  """

  channels: Width
  ids: Few = 1
  commitment: AtLeast0 = 0.25
  entropy: AtLeast0 = 0.0

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

  def pull(self, latent: jax.Array, vectors: jax.Array) -> Losses:
    square = (jax.lax.stop_gradient(vectors) - latent) ** 2
    return {'commitment': self.commitment * jnp.mean(square)}

  def spread(self, latent: jax.Array) -> Losses:
    if not self.entropy:
      return {}
    codes = 2.0 * _bits(jnp.arange(2**self.channels), self.channels) - 1
    far = distances(latent.reshape(-1, self.channels), codes)
    return {'entropy': self.entropy * entropy_loss(far)}

  def metrics(self, latent: jax.Array) -> dict[str, Mean]:
    return {'bits_set': Mean.of(latent > 0)}

  def quantize(self, latent: jax.Array) -> jax.Array:
    bits = (latent > 0).astype(jnp.int32)
    bits = bits.reshape(*latent.shape[:-1], self.ids, -1)
    values = jnp.sum(bits << np.arange(bits.shape[-1]), -1)
    return values if self.ids > 1 else values[..., 0]

  def embed(self, values: jax.Array) -> jax.Array:
    values = values if self.ids > 1 else values[..., None]
    bits = _bits(values, self.channels // self.ids)
    return 2.0 * bits.reshape(*values.shape[:-1], self.channels) - 1


def _bits(values, count):
  """(...) int32 -> (..., count) bits, the lowest first."""
  return (values[..., None] >> np.arange(count)) & 1
