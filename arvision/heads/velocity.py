"""A velocity, where the backbone itself takes the noise away."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.ranges import AtLeast0, Width
from arvision.structs import Draw, Slots


class Velocity(nn.Module):
  """The velocity of every token by a linear map in float32; squared error.

  It has a field and cannot draw: `samplers.refine.Refine` follows the field
  through the whole network.

  Source: arXiv 2502.20388 (xAR).

  Attributes:
    channels: of a token.
    std: standard deviation of the kernel at the start; None: Xavier's.
  """

  channels: Width
  std: AtLeast0 | None = None

  def setup(self):
    self.linear = Dense(
      (self.channels,), ('embed', None), kernel_init=normal(self.std)
    )

  def field(self, z: jax.Array, at: Slots) -> jax.Array:
    """z (b, t, 1, d) -> (b, t, c) float32 velocities, see `process.flow`."""
    del at  # other heads read where they are
    return self.linear(z[:, :, 0].astype(jnp.float32))

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, at: Slots
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Squared error, the mean over channels.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, c) float32 velocities.
      draw: not used.
      at: rows of the slots that z was read from.

    Returns:
      (b, t) float32 losses, and no metrics.
    """
    del draw
    return jnp.mean((self.field(z, at) - targets) ** 2, -1), {}
