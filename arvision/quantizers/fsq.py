"""Finite scalar quantisation: every channel becomes one of a few levels."""

import jax
import jax.numpy as jnp
import numpy as np

from arvision.quantizers.base import Quantizer
from arvision.random import Draw
from arvision.ranges import Few


class FSQ(Quantizer, kw_only=True):
  """The rounded tanh of every channel; all channels together are one id.

  Source: Mentzer et al., arXiv 2309.15505, appendix A.1.

  Attributes:
    levels: of every channel.
  """

  levels: tuple[Few, ...]

  @property
  def channels(self) -> int:
    return len(self.levels)

  @property
  def size(self) -> int:
    return int(np.prod(self.levels))

  def latent(self, moments: jax.Array, draw: Draw | None = None) -> jax.Array:
    """Within the levels of every channel, from about -1 to 1."""
    levels = np.array(self.levels, np.float32)
    width = (levels - 1) * 1.001 / 2
    offset = np.where(levels % 2, 0, 0.5).astype(np.float32)
    bound = jnp.tanh(moments + np.arctanh(offset / width)) * width - offset
    return bound / self._half

  def quantize(self, latent: jax.Array) -> jax.Array:
    digits = jnp.round(latent * self._half) + self._half
    return jnp.sum(digits.astype(jnp.int32) * self._basis, -1)

  def embed(self, values: jax.Array) -> jax.Array:
    digits = values[..., None] // self._basis % np.array(self.levels, np.int32)
    return (digits - self._half) / self._half

  @property
  def _half(self):
    return np.float32(np.array(self.levels) // 2)

  @property
  def _basis(self):
    return np.cumprod((1, *self.levels[:-1]), dtype=np.int32)
