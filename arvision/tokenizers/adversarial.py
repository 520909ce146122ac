"""The patch discriminator and its losses."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal, zeros

from arvision.errors import ConfigError
from arvision.layers import conv
from arvision.layers.param import param
from arvision.ranges import (
  AtLeast0,
  Below1,
  Dtype,
  Few,
  Natural,
  Positive,
  Width,
)
from arvision.structs import Template


class PatchDiscriminator(nn.Module):
  """Image (b, H, W, C) -> (b, h, w, 1) logits, one per overlapping patch.

  Source: Isola et al., arXiv 1611.07004 (PatchGAN), as LlamaGen uses it: 64
  features, 3 layers, batch norm, 4 x 4 kernels, weights from N(0, 0.02).
  Differs: `norm='batch'` always uses the statistics of the (global) batch and
  keeps no running averages: a discriminator is never run outside training.
  'group' does not mix examples, so that accumulation cannot change it.

  Attributes:
    features: channels of the first layer; they double up to eight times.
    layers: strided layers; each halves the grid.
    norm: 'group' or 'batch'.
    groups: of the group norm.
    dtype: compute dtype.
  """

  features: Width = 64
  layers: Few = 3
  norm: str = 'group'
  groups: Few = 32
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    self._check(image)
    h = nn.leaky_relu(self._conv(self.features, 2, True, 'conv_0')(image), 0.2)
    for i in range(1, self.layers + 1):
      features = self.features * min(2**i, 8)
      stride = 2 if i < self.layers else 1
      # A batch norm would subtract a bias again.
      bias = self.norm != 'batch'
      h = self._conv(features, stride, bias, f'conv_{i}')(h)
      h = nn.leaky_relu(self._norm(features, f'norm_{i}')(h), 0.2)
    h = self._conv(1, 1, True, f'conv_{self.layers + 1}')(h)
    return h.astype(jnp.float32)

  def _conv(self, features, stride, bias, name):
    return conv.conv(
      features,
      4,
      name=name,
      stride=stride,
      padding=((1, 1), (1, 1)),
      bias=bias,
      init=normal(0.02),
      dtype=self.dtype,
    )

  def _norm(self, features, name):
    if self.norm == 'batch':
      return BatchNorm(name=name)
    return conv.norm(features, self.groups, name=name)

  def _check(self, image):
    if self.norm not in ('group', 'batch'):
      raise ConfigError(
        f"config.task.adversary.net.norm='{self.norm}': wanted 'group' or "
        "'batch'"
      )
    smallest = 3 * 2**self.layers  # the last two layers each lose a row
    if min(image.shape[1:3]) < smallest:
      raise ConfigError(
        f'the discriminator with {self.layers} layers needs images of at least '
        f'{smallest} px, got {image.shape[1:3]}; lower '
        'config.task.adversary.net.layers'
      )


class BatchNorm(nn.Module):
  """(x - mean) / sqrt(variance + epsilon) over examples and places, float32."""

  epsilon: Positive = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = (x.shape[-1],)
    scale = param(self, 'scale', _near_one, (None,), channels)
    bias = param(self, 'bias', zeros, (None,), channels)
    x = x.astype(jnp.float32)
    mean = jnp.mean(x, axis=(0, 1, 2))
    variance = jnp.mean((x - mean) ** 2, axis=(0, 1, 2))
    return (x - mean) * jax.lax.rsqrt(variance + self.epsilon) * scale + bias


def _near_one(key, shape, dtype=jnp.float32):
  return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def hinge(real: jax.Array, fake: jax.Array) -> jax.Array:
  """(b,) the discriminator's hinge loss of logits (b, h, w, 1).

  Source: Lim and Ye, arXiv 1705.02894, halved as in LlamaGen.
  """
  real, fake = nn.relu(1 - real), nn.relu(1 + fake)
  return 0.5 * jnp.mean(real + fake, axis=(1, 2, 3))


def generator(fake: jax.Array) -> jax.Array:
  """(b,) the tokenizer's loss of the discriminator's logits (b, h, w, 1)."""
  return -jnp.mean(fake, axis=(1, 2, 3))


def lecam(means: jax.Array, averages: jax.Array) -> jax.Array:
  """() LeCam regularisation of a discriminator.

  relu(real - average fake)² + relu(average real - fake)² of mean logits.

  Source: Tseng et al., arXiv 2104.03310, as markweberdev/maskbit and
    bytedance/1d-tokenizer have it.

  Args:
    means: (2,) mean logits of real images and of reconstructions.
    averages: (2,) their running averages.
  """
  gaps = jnp.stack([means[0] - averages[1], averages[0] - means[1]])
  return jnp.sum(nn.relu(gaps) ** 2)


def balance(
  reconstruction: jax.Array,
  adversarial: jax.Array,
  limits: tuple[float, float] = (0.0, 1e4),
) -> jax.Array:
  """The adaptive weight: the ratio of two gradients' norms at the last layer.

  Source: Esser et al., arXiv 2012.09841, equation 7.

  Args:
    reconstruction: gradient of the reconstruction loss at the decoder's last
      kernel.
    adversarial: gradient of the generator's loss there.
    limits: the weight is clipped to them.
  """
  length = jnp.linalg.norm(reconstruction.reshape(-1))
  other = jnp.linalg.norm(adversarial.reshape(-1))
  weight = jnp.clip(length / (other + 1e-4), *limits)
  return jax.lax.stop_gradient(weight)


@dataclasses.dataclass(frozen=True)
class Adversary:
  """A discriminator, and how much its opinion counts.

  Attributes:
    net: template of the discriminator.
    weight: of its opinion.
    start: step at which both networks start to feel it.
    limits: None for a fixed weight; (low, high): the weight is multiplied by the
      ratio of the gradients at the decoder's last layer, clipped to these limits.
    lecam: weight of the LeCam regularisation; 0 for none.
    lecam_decay: of its running averages, which start at 0.
  """

  net: Template = PatchDiscriminator
  weight: AtLeast0 = 0.5
  start: Natural = 0
  limits: tuple[AtLeast0, AtLeast0] | None = None
  lecam: AtLeast0 = 0.0
  lecam_decay: Below1 = 0.999
