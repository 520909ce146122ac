"""Noise levels and times as vectors."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.ranges import AtLeast0, Width


def sinusoid(times: jax.Array, channels: int, longest: float = 1e4):
  """(..., channels) float32: cosines of times * frequency, then sines.

  The channels / 2 frequencies fall from 1 to 1 / `longest` (not quite).

  Source: arXiv 2006.11239 in the form of openai/guided-diffusion.

  Args:
    times: (...) float32 or int32, in units of 1 / 1000 of the whole.
    channels: even.
    longest: period of the last frequency, in units of 2 pi.
  """
  half = channels // 2
  # Exponents are rounded to float32, as in the published models. With times of up
  # to 1000, an error in the last digit of a frequency shows in the fifth of an angle.
  numbers = np.arange(half, dtype=np.float32)
  exponent = -np.float32(np.log(longest)) * numbers / np.float32(half)
  frequency = np.exp(exponent.astype(np.float64))
  angle = times.astype(jnp.float32)[..., None] * jnp.float32(frequency)
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


def as_time(level: jax.Array) -> jax.Array:
  """Level in [0, 1] -> whole thousandths, rounded down (xAR, FlowAR)."""
  return jnp.floor(1000 * level.astype(jnp.float32))


class LevelEmbedding(nn.Module):
  """fc2(silu(fc1 sinusoid(time))) in float32.

  Attributes:
    width: of the vectors.
    channels: of the sinusoid.
    std: standard deviation of the kernels at the start; None: Xavier's.
  """

  width: Width
  channels: Width = 256
  std: AtLeast0 | None = 0.02

  @nn.compact
  def __call__(self, times: jax.Array) -> jax.Array:
    """(...) times, see `sinusoid` -> (..., width) float32."""

    def linear(name: str, axes: tuple[Any, ...]):
      return Dense((self.width,), axes, kernel_init=normal(self.std), name=name)

    x = sinusoid(times, self.channels)
    x = jax.nn.silu(linear('fc1', (None, 'mlp'))(x))
    return linear('fc2', ('mlp', 'embed'))(x)
