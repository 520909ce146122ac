"""Norms that embed the noise level and the class themselves (VQ-Diffusion).

Source: microsoft/VQ-Diffusion, modeling/transformers/transformer_utils.py.
"""

import math
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.attention import BlockInputs
from arvision.layers.blocks import GELU, Block
from arvision.layers.conv import conv
from arvision.layers.dense import Dense
from arvision.layers.norm import AffineLayerNorm, LayerNorm, modulate
from arvision.layers.param import normal, param
from arvision.ranges import AtLeast0, Below1, Count, Dtype, Positive, Width
from arvision.structs import Template


class InstanceNorm(nn.Module):
  """Every channel of an example normalised over its slots, without scale.

  Attributes:
    epsilon: added to the variance.
    dtype: of what is returned.
  """

  epsilon: Positive = 1e-5
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, 1, keepdims=True)
    variance = jnp.mean(x * x, 1, keepdims=True)
    return (x * jax.lax.rsqrt(variance + self.epsilon)).astype(self.dtype)


class LevelNorm(nn.Module):
  """AdaLN: a norm with scale and shift from the embedding of a noise level.

  The embedding belongs to this norm alone. It is a learned table with a row for
  every step, or sines and cosines of the step.

  Attributes:
    count: number of steps from data to noise.
    embedding: 'table', or 'sinusoid' (the published adalayernorm_abs).
    norm: template of the norm.
    std: standard deviation of table and kernel at the start.
    dtype: compute dtype.
  """

  count: Count
  embedding: Literal['table', 'sinusoid'] = 'table'
  norm: Template = LayerNorm
  std: AtLeast0 = 0.02
  dtype: Dtype = jnp.float32

  modulated: ClassVar[bool] = True

  @nn.compact
  def __call__(self, x: jax.Array, modulation: jax.Array, rows: Any = None):
    """x (b, n, d) -> (b, n, d).

    Args:
      x: (b, n, d).
      modulation: (b, 1, 2) float32 level and class, see `LevelAndClass`.
      rows: not used.
    """
    width = x.shape[-1]
    if self.embedding == 'table':
      shape = (self.count, width)
      table = param(self, 'table', normal(self.std), (None, 'embed'), shape)
    else:
      table = _sinusoids(self.count, width)
    vector = self.row(jnp.asarray(table), modulation)
    two = Dense(
      (2, width),
      ('embed', None, 'mlp'),
      kernel_init=normal(self.std),
      name='linear',
    )(jax.nn.silu(vector))
    x = self.norm(dtype=self.dtype, name='norm')(x)
    two = two.astype(self.dtype)
    return modulate(x, two[..., 0, :], two[..., 1, :])

  def row(self, table: jax.Array, modulation: jax.Array) -> jax.Array:
    """(b, 1, d) the rows of the levels; step 1 of `count` has the first row."""
    step = jnp.round(modulation[..., 0] * self.count).astype(jnp.int32)
    return table[jnp.clip(step - 1, 0, self.count - 1)]


class ClassNorm(LevelNorm):
  """The same for classes; the null class has the mean of the embeddings.

  Differs: in the official code the first example of a batch decides whether all
    have the null class.
  """

  def row(self, table, modulation):
    number = modulation[..., 1].astype(jnp.int32)
    known = table[jnp.clip(number, 0, self.count - 1)]
    null = jnp.mean(table, 0)
    return jnp.where((number < self.count)[..., None], known, null)


def _sinusoids(count, width):
  """(count, width) float32 sines, then cosines, of 4000 i / count."""
  # Rounded to float32 as in the published models: angles are up to 4000.
  step = np.arange(count, dtype=np.float32) / np.float32(count)
  step *= np.float32(4000)
  half = width // 2
  scale = np.float32(-math.log(10000) / (half - 1))
  exponent = np.arange(half, dtype=np.float32) * scale
  frequency = np.float32(np.exp(np.float64(exponent)))
  angle = np.float64(step[:, None] * frequency)
  both = np.concatenate([np.sin(angle), np.cos(angle)], -1)
  return both.astype(np.float32)


class QuickGELU(GELU):
  """fc2(f(fc1 x)) with f(x) = x sigmoid(1.702 x) (the published GELU2)."""

  def activation(self, x):
    return x * jax.nn.sigmoid(1.702 * x)


# Of torch's convolutions.
_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class QuickConvMLP(QuickGELU, kw_only=True):
  """conv2(f(conv1 x)), 3 × 3 over the grid, with f(x) = x sigmoid(1.702 x).

  Attributes:
    grid: height and width of the tokens.
  """

  grid: tuple[Width, Width]

  @nn.compact
  def __call__(self, x, train=False):
    """x (b, height * width, d) -> the same shape."""
    height, width = self.grid
    batch, slots, channels = x.shape
    if slots != height * width:
      raise ValueError(
        f'config.backbone.block.mlp.grid={self.grid}: wanted the grid of the '
        f'{slots} tokens of config.layout'
      )
    y = x.reshape(batch, height, width, channels)
    y = conv(self.hidden, name='conv1', init=_uniform, dtype=self.dtype)(y)
    y = self.activation(y)
    y = conv(channels, name='conv2', init=_uniform, dtype=self.dtype)(y)
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    return y.reshape(x.shape)


class ExactConvMLP(QuickConvMLP):
  """The same with the error function's gelu."""

  def activation(self, x):
    return jax.nn.gelu(x, approximate=False)


class NormedBlock(Block):
  """A block with a norm of its own kind before every sub-layer.

  Norms with the trait `modulated` are given the condition. There are no gates.

  Attributes:
    mlp_norm: template of the norm before the MLP; `norm` is that before the
      attention, `cross_norm` that before cross attention.
    memory_norm: template of the norm of the memory; None: the memory as it is.
    cross_dropout: rate on the output of cross attention.
  """

  mlp_norm: Template = AffineLayerNorm
  cross_dropout: Below1 = 0.0

  @nn.compact
  def __call__(self, x, drop, inputs: BlockInputs, cache=None):
    def normed(name, template):
      norm = template(dtype=self.dtype, name=name)
      if getattr(norm, 'modulated', False):
        return norm(x, inputs.modulation, inputs.rows)
      return norm(x)

    y = normed('norm1', self.norm)
    y, cache = self._part('attention', heads=self.heads)(y, inputs, cache)
    x = x + self._drop(y, drop, inputs.train)
    if self.cross is not None:
      memory = inputs.memory
      if memory is None:
        raise ValueError(
          'config.backbone.block.cross: the condition has no memory to attend '
          'to; use a condition that fills `Cond.memory`, or leave `cross` out'
        )
      if self.memory_norm is not None:
        norm = self.memory_norm(dtype=self.dtype, name='memory_norm')
        memory = memory.replace(values=norm(memory.values))
      y = normed('cross_norm', self.cross_norm)
      y = self._part('cross', heads=self.heads)(y, memory)
      y = nn.Dropout(self.cross_dropout, deterministic=not inputs.train)(y)
      x = x + self._drop(y, drop, inputs.train)
    y = self._part('mlp')(normed('norm2', self.mlp_norm), inputs.train)
    return x + self._drop(y, drop, inputs.train), cache
