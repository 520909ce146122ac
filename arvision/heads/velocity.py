"""Velocity or noise, for a backbone that denoises by itself."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.random import Draw
from arvision.ranges import AtLeast0, Natural, Width
from arvision.structs import Query


class Velocity(nn.Module):
  """The velocity of every token by a linear map in float32; squared error.

  It has a field and samples nothing: `samplers.refine.Refine` follows the
  field through the whole network.

  Source: arXiv 2502.20388 (xAR).

  Attributes:
    channels: of a token.
    std: standard deviation of the kernel at the start; None: Xavier's.
    spare: outputs after those of the channels, which are not used (ARFlow's
      learn_sigma).
  """

  channels: Width
  std: AtLeast0 | None = None
  spare: Natural = 0

  draws: ClassVar[bool] = False
  adjustable: ClassVar[tuple[str, ...]] = ()

  def setup(self):
    self.linear = Dense(
      (self.channels + self.spare,),
      ('embed', None),
      kernel_init=normal(self.std),
    )

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """z (b, t, 1, d) -> (b, t, c) float32 velocities, see `process.flow`."""
    del query  # other heads read it
    return self.linear(z[:, :, 0].astype(jnp.float32))[..., : self.channels]

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Squared error, the mean over channels.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, c) float32 velocities.
      draw: not used.
      query: not used.

    Returns:
      (b, t) float32 losses, and no metrics.
    """
    del draw
    return jnp.mean((self.field(z, query) - targets) ** 2, -1), {}


class Noise(Velocity):
  """The same for the noise, the field of `process.path.Diffusion` (ACDiT).

  Source: arXiv 2412.07720.
  """
