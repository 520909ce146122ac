"""Continuous tokens: latents with a Gaussian posterior (LDM, MAR)."""

from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from arvision.quantizers.base import Losses, Quantized, Quantizer
from arvision.random import Draw
from arvision.ranges import AtLeast0, Positive, Width


@flax.struct.dataclass
class Gaussian:
  """A diagonal Gaussian for every place.

  Attributes:
    mean, log_variance: (..., c) float32.
  """

  mean: jax.Array
  log_variance: jax.Array

  @classmethod
  def of(cls, moments: jax.Array) -> 'Gaussian':
    """Moments (..., 2 c): means, then logs of variances, cut to [-30, 20]."""
    mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, -1)
    return cls(mean, jnp.clip(log_variance, -30, 20))

  @property
  def std(self) -> jax.Array:
    return jnp.exp(0.5 * self.log_variance)

  def kl(self) -> jax.Array:
    """(...,) nats to the standard Gaussian, summed over the last axis."""
    square = self.mean**2 + jnp.exp(self.log_variance)
    return 0.5 * jnp.sum(square - 1 - self.log_variance, -1)

  def sample(self, draw: Draw) -> jax.Array:
    """(b, ...) a sample; its noise is named 'tokenizer/posterior'."""
    return self.mean + self.std * draw.normal(
      'tokenizer/posterior', self.mean.shape[1:]
    )


class KL(Quantizer, kw_only=True):
  """A Gaussian posterior for every place, and a sample of it as its token.

  Generators see (latent - shift) * scale. What is stored of an image are the
  moments before that, so that a new latent is sampled at every visit.

  Source: arXiv 2112.10752 (kl-f16); LTH14/mar, models/vae.py, whose latents are
    scaled by 0.2325, one over their standard deviation on ImageNet.

  Attributes:
    channels: of the latent.
    kl: weight of the mean KL divergence of an image, in nats.
    scale: what latents are multiplied by, 1 / their standard deviation; measure
      it with `arvision latents`.
    shift: what is taken from them before, one number or one per channel.
  """

  channels: Width
  kl: AtLeast0 = 1e-6
  scale: Positive = 1.0
  shift: float | tuple[float, ...] = 0.0

  moments: ClassVar[int] = 2
  stochastic: ClassVar[bool] = True
  adjustable: ClassVar[tuple[str, ...]] = ('scale', 'shift')

  @property
  def size(self) -> int:
    return 0

  @property
  def parts(self) -> int:
    return self.channels

  def __call__(self, latent: jax.Array, draw: Draw | None = None) -> Quantized:
    return Quantized(latent, latent, {}, latent)

  def regularization(self, moments: jax.Array) -> Losses:
    nats = Gaussian.of(moments).kl()
    nats = jnp.mean(jnp.sum(nats, tuple(range(1, nats.ndim))))
    return {'kl': self.kl * nats}

  def latent(self, moments: jax.Array, draw: Draw | None = None) -> jax.Array:
    """Without `draw` the means: what is decoded best."""
    posterior = Gaussian.of(moments)
    return posterior.mean if draw is None else posterior.sample(draw)

  def scaled(self, latent: jax.Array) -> jax.Array:
    return (latent - jnp.asarray(self.shift)) * self.scale

  def unscaled(self, latent: jax.Array) -> jax.Array:
    return latent / self.scale + jnp.asarray(self.shift)

  def quantize(self, latent: jax.Array) -> jax.Array:
    return latent

  def embed(self, values: jax.Array) -> jax.Array:
    return values
