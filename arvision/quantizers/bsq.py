"""Binary spherical quantisation: signs of a latent on the unit sphere."""

import jax
import jax.numpy as jnp

from arvision.metrics import Mean
from arvision.quantizers.base import Losses, Quantized, Quantizer
from arvision.quantizers.lookup import normalized
from arvision.random import Draw
from arvision.ranges import AtLeast0, Positive, Width


class BSQ(Quantizer, kw_only=True):
  """Bits: 1 where a channel is positive; codes are corners of the unit sphere.

  A token has one bit per channel. Its vector is (2 bit - 1) / sqrt(channels).
  Losses are those of latents that are projected onto the unit sphere.

  Source: Zhao et al., arXiv 2406.07548; FoundationVision/Infinity, whose weights
    these are.

  Attributes:
    channels: number of bits.
    commitment: weight of the pull on the encoder towards its codes.
    entropy: weight of the entropy of a bit minus the entropy of its mean over
      the batch, summed over the bits.
    inverse_temperature: of the probability of a bit.
  """

  channels: Width
  commitment: AtLeast0 = 0.25
  entropy: AtLeast0 = 0.1
  inverse_temperature: Positive = 100.0

  @property
  def size(self) -> int:
    return 2

  @property
  def parts(self) -> int:
    return self.channels

  def __call__(self, latent: jax.Array, draw: Draw | None = None) -> Quantized:
    return super().__call__(normalized(latent), draw)

  def pull(self, latent: jax.Array, vectors: jax.Array) -> Losses:
    square = (jax.lax.stop_gradient(vectors) - latent) ** 2
    return {'commitment': self.commitment * jnp.mean(square)}

  def spread(self, latent: jax.Array, draw: Draw | None = None) -> Losses:
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
    return bits if self.channels > 1 else bits[..., 0]

  def embed(self, values: jax.Array) -> jax.Array:
    bits = values if self.channels > 1 else values[..., None]
    return (2.0 * bits - 1) * self.channels**-0.5


def _entropy(logits):
  """Entropy in nats of bits with these logits."""
  p = jax.nn.sigmoid(logits)
  return p * jax.nn.softplus(-logits) + (1 - p) * jax.nn.softplus(logits)


def _logit(p, edge=1e-6):
  p = jnp.clip(p, edge, 1 - edge)
  return jnp.log(p) - jnp.log1p(-p)
