"""Discriminators that see pixels, and their losses."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal, zeros

from arvision.errors import ConfigError
from arvision.layers import conv
from arvision.layers.param import param
from arvision.random import Draw
from arvision.ranges import (
  AtLeast0,
  Below1,
  Dtype,
  Few,
  Natural,
  Positive,
  Side,
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


class BlurDiscriminator(nn.Module):
  """Image (b, H, W, C) -> (b, side, side, 1) logits, blurred before it shrinks.

  Source: markweberdev/maskbit (arXiv 2409.16211) and bytedance/1d-tokenizer,
    NLayerDiscriminatorv2 with a blur of 4 pixels.
  Differs: biases start at 0.

  Attributes:
    features: channels of the first stage; they double with every further one.
    stages: how often the grid is halved.
    side: of the grid of logits, to which maxima of windows are taken.
    groups: of the group norms.
    dtype: compute dtype.
  """

  features: Width = 128
  stages: Few = 3
  side: Side = 16
  groups: Few = 32
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')

    def convolved(x, features, kernel, name):
      return conv.conv(
        features, kernel, name=name, init=init, dtype=self.dtype
      )(x)

    act = lambda x: nn.leaky_relu(x, 0.1)
    h = act(convolved(image, self.features, 5, 'conv_in'))
    for i in range(self.stages):
      features = self.features * 2**i
      h = blurred(convolved(h, features, 3, f'conv_{i}'))
      norm = conv.norm(features, self.groups, name=f'norm_{i}', epsilon=1e-5)
      h = act(norm(h))
    h = act(convolved(_pooled(h, self.side), h.shape[-1], 1, 'conv_mid'))
    return convolved(h, 1, 5, 'conv_out').astype(jnp.float32)


def blurred(x: jax.Array) -> jax.Array:
  """Every second place of (b, h, w, c), after a blur of (1, 3, 3, 1) / 8."""
  for axis in (1, 2):
    size = x.shape[axis]
    out = -(-size // 2)
    more = 2 * out + 2 - size
    ends = [(0, 0)] * 4
    ends[axis] = (more // 2, more - more // 2)
    padded = jnp.pad(x, ends)
    x = jnp.asarray(
      sum(
        w * jax.lax.slice_in_dim(padded, j, j + 2 * out - 1, 2, axis)
        for j, w in enumerate((0.125, 0.375, 0.375, 0.125))
      )
    )
  return x


def _pooled(x, side):
  """Maxima of side x side windows that cover (b, h, w, c) (torch's adaptive)."""
  for axis in (1, 2):
    size = x.shape[axis]
    if size == side:
      continue
    ends = [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
    cut = lambda i, j, x=x, axis=axis: jax.lax.slice_in_dim(x, i, j, 1, axis)
    x = jnp.stack([jnp.max(cut(*end), axis) for end in ends], axis)
  return x


class BatchNorm(nn.Module):
  """(x - mean) / sqrt(variance + epsilon) over examples and places, float32.

  Attributes:
    epsilon: see above.
    examples: neighbours in the batch that share their statistics, at most; 0: the
      whole batch.
    std: standard deviation of the scale at the start, around 1.
  """

  epsilon: Positive = 1e-5
  examples: Natural = 0
  std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = (x.shape[-1],)
    start = lambda *args: 1 + self.std * jax.random.normal(*args)
    scale = param(self, 'scale', start, (None,), channels)
    bias = param(self, 'bias', zeros, (None,), channels)
    groups = -(-len(x) // self.examples) if self.examples else 1
    if len(x) % groups:
      raise ConfigError(
        f'a batch norm cannot split {len(x)} examples into {groups} groups of '
        f'up to {self.examples}; change config.data.batch_size, '
        'config.optim.accumulate or config.task.adversary.net.examples'
      )
    y = x.astype(jnp.float32).reshape(groups, -1, *x.shape[1:])
    axes = tuple(range(1, y.ndim - 1))
    mean = jnp.mean(y, axes, keepdims=True)
    variance = jnp.mean((y - mean) ** 2, axes, keepdims=True)
    y = (y - mean) * jax.lax.rsqrt(variance + self.epsilon)
    return y.reshape(x.shape) * scale + bias


def hinge(real: jax.Array, fake: jax.Array) -> jax.Array:
  """(b,) the discriminator's hinge loss of logits (b, ...).

  Source: Lim and Ye, arXiv 1705.02894, halved as in LlamaGen.
  """
  real, fake = nn.relu(1 - real), nn.relu(1 + fake)
  return 0.5 * _mean(real + fake)


def generator(fake: jax.Array) -> jax.Array:
  """(b,) the tokenizer's loss of the discriminator's logits (b, ...)."""
  return -_mean(fake)


def _mean(logits):
  return jnp.mean(logits, axis=tuple(range(1, logits.ndim)))


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
    features: frozen network whose features `net` takes instead of the image, see
      `tasks.perception.Dino`; None: there is none.
    rounded: whether it learns from reconstructions as pictures have them, clipped
      and rounded to 8 bits.
  """

  net: Template = PatchDiscriminator
  weight: AtLeast0 = 0.5
  start: Natural = 0
  limits: tuple[AtLeast0, AtLeast0] | None = None
  lecam: AtLeast0 = 0.0
  lecam_decay: Below1 = 0.999
  features: Any = None
  rounded: bool = False

  def view(
    self, weights: Any, image: jax.Array, draw: Draw | None = None
  ) -> Any:
    """What `net` takes.

    Args:
      weights: of `features`.
      image: (b, H, W, C) float32 in [-1, 1].
      draw: keys of the examples, or None.
    """
    if self.features is None:
      return image
    return self.features(weights, image, draw)

  def fake(self, other: jax.Array) -> jax.Array:
    """The reconstruction (b, H, W, C) that the discriminator learns from."""
    other = jax.lax.stop_gradient(other)
    if not self.rounded:
      return other
    other = jnp.clip(other, -1, 1)
    return jnp.round((other + 1) * 127.5) / 127.5 - 1
