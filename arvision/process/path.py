"""Paths between data and noise: flow matching and diffusion in the same words.

    x_level = scale(level) data + std(level) noise

Level 0 is data and level 1 is noise. A path also states the field, which the
network predicts at x_level, and the time, by which it is told the level.
"""

import dataclasses
import functools
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from arvision.process.diffusion import TRAIN_STEPS, linear_betas
from arvision.structs import Array


class Noised(NamedTuple):
  """Data on its way to noise.

  Attributes:
    values: (..., c) float32 x_level.
    target: (..., c) float32, the field that the network is trained to predict.
    time: (...) float32 time of the level, in thousandths.
  """

  values: jax.Array
  target: jax.Array
  time: jax.Array


class Path(Protocol):
  """How data becomes noise.

  Attributes:
    velocities: whether the field is a velocity, which `process.flow.Euler` and
      its like integrate.
  """

  velocities: ClassVar[bool]

  def __call__(self, x: Array, noise: Array, level: Array | float) -> Noised:
    """x at a level.

    Args:
      x, noise: (..., c) data and standard normal noise.
      level: (...) in [0, 1]; at 0 the values are x, bit for bit.
    """

  def coefficients(self, level: Array | float) -> tuple[jax.Array, jax.Array]:
    """(...) float32 scale of the data and standard deviation of the noise."""

  def split(
    self, x: jax.Array, field: jax.Array, level: Array | float
  ) -> tuple[jax.Array, jax.Array]:
    """The data and the noise (..., c) that a field at x (..., c) implies.

    Args:
      x, field: (..., c).
      level: (...) above 0.
    """


class _Path:
  """The parts that flow and diffusion share."""

  def time(self, level):
    """(...) float32 whole thousandths, rounded down."""
    return jnp.floor(TRAIN_STEPS * jnp.asarray(level, jnp.float32))

  def __call__(self, x, noise, level):
    scale, std = (part[..., None] for part in self.coefficients(level))
    values = scale * x + std * noise
    return Noised(values, self.target(x, noise), self.time(level))


@dataclasses.dataclass(frozen=True)
class Flow(_Path):
  """The straight path of flow matching; the field is the velocity, noise - x.

  Source: arXiv 2210.02747 and arXiv 2209.03003 (flow matching, rectified flow).
  """

  velocities: ClassVar[bool] = True

  def coefficients(self, level):
    level = jnp.asarray(level, jnp.float32)
    return 1 - level, level

  def target(self, x, noise):
    return noise - x

  def split(self, x, field, level):
    level = jnp.asarray(level, jnp.float32)[..., None]
    return x - level * field, x + (1 - level) * field


@dataclasses.dataclass(frozen=True)
class Diffusion(_Path):
  """The variance-preserving path of DDPM; the field is the noise.

      x_t = sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) noise

  Time t in 0 .. 999 is every level in [t, t + 1) / 1000, but that level 0 is data
  without noise. Betas grow linearly from 1e-4 to 0.02.

  Source: arXiv 2006.11239 (DDPM).
  """

  velocities: ClassVar[bool] = False

  def coefficients(self, level):
    time = jnp.clip(self.time(level), 0, TRAIN_STEPS - 1).astype(jnp.int32)
    row = jnp.where(jnp.asarray(level) > 0, time + 1, 0)
    scale, std = jnp.asarray(_linear_table())
    return scale[row], std[row]

  def target(self, x, noise):
    return jnp.broadcast_to(noise, jnp.shape(x))

  def split(self, x, field, level):
    scale, std = (part[..., None] for part in self.coefficients(level))
    return (x - std * field) / scale, field


@functools.cache
def _linear_table():
  """(2, 1001) float32 scales and deviations: of data, then of every time."""
  bar = np.append(1.0, np.cumprod(1 - linear_betas()))
  return np.sqrt([bar, 1 - bar]).astype(np.float32)


def level_of(time: Array) -> Array:
  """(...) the middle of the levels of times in 0 .. 999, see `Diffusion`."""
  return (time + 0.5) / TRAIN_STEPS
