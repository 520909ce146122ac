"""Norms with the defaults of this field; statistics in float32."""

from typing import Any

import flax.linen as nn
import jax

from arvision.ranges import Dtype, Positive

_scale: Any = nn.with_logical_partitioning(nn.initializers.ones, ('norm',))
_bias: Any = nn.with_logical_partitioning(nn.initializers.zeros, ('norm',))


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


class NoNorm(nn.Module):
  """Nothing, where a config wants no norm."""

  dtype: Dtype | None = None

  def __call__(self, x: jax.Array) -> jax.Array:
    return x


def modulate(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
  """adaLN's x (1 + scale) + shift."""
  return x * (1 + scale) + shift
