"""Norms with the defaults of this field; statistics in float32."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.parallel.constrain import gather_rows
from arvision.ranges import AtLeast0, Dtype, Positive
from arvision.structs import Template

_scale: Any = nn.with_logical_partitioning(nn.initializers.ones, (None,))
_bias: Any = nn.with_logical_partitioning(nn.initializers.zeros, (None,))


class RMSNorm(nn.RMSNorm):
  """x / rms(x) * scale (LlamaGen: epsilon 1e-5)."""

  epsilon: Positive = 1e-5
  scale_init: nn.initializers.Initializer = _scale


class LayerNorm(nn.LayerNorm):
  """Layer norm without an affine part, as adaLN wants it (epsilon 1e-6)."""

  epsilon: Positive = 1e-6
  use_scale: bool = False
  use_bias: bool = False
  use_fast_variance: bool = False  # E[x^2] - E[x]^2 loses digits


class AffineLayerNorm(LayerNorm):
  """Layer norm with scale and bias."""

  use_scale: bool = True
  use_bias: bool = True
  scale_init: nn.initializers.Initializer = _scale
  bias_init: nn.initializers.Initializer = _bias


class TokenLayerNorm(AffineLayerNorm):
  """The same for embedded tokens alone: the prefix enters behind it (AutoNAT)."""

  # A backbone fills the prefix after an embedding norm with this trait.
  tokens_only: ClassVar[bool] = True


class NoNorm(nn.Module):
  """Nothing, where a config wants no norm.

  Attributes:
    dtype: not used.
  """

  dtype: Dtype | None = None

  def __call__(self, x: jax.Array) -> jax.Array:
    return x


def modulate(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
  """adaLN's x (1 + scale) + shift."""
  return x * (1 + scale) + shift


class ModulatedNorm(nn.Module):
  """A norm whose scale and shift come from the condition (VAR's head_nm).

  Attributes:
    norm: template of the norm.
    std: standard deviation of the kernel of the modulation at the start.
  """

  norm: Template = LayerNorm
  std: AtLeast0 = 0.02

  # A backbone gives its condition to a last norm with this trait.
  modulated: ClassVar[bool] = True

  @nn.compact
  def __call__(self, x: jax.Array, modulation: jax.Array, rows: Any = None):
    """x (b, n, d), modulation (b, 1 or n, d) -> (b, n, d); rows: `BlockInputs`."""
    x = self.norm(name='norm')(x)
    two = Dense(
      (2, x.shape[-1]),
      ('embed', None, 'mlp'),
      kernel_init=normal(self.std),
      name='adaln',
    )(jax.nn.silu(jnp.asarray(modulation, jnp.float32)))
    if rows is not None:
      two = gather_rows(two, rows)
    return modulate(x, two[..., 0, :], two[..., 1, :])
