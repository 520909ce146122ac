"""Positions as fixed sines and cosines."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.param import fixed
from arvision.layouts.base import Layout, take
from arvision.ranges import Width
from arvision.structs import Slots


class FixedWaves(nn.Module):
  """Sines and cosines of x, then of y, of the token's place (DiT's pos_embed).

  The table is stored with the parameters and never trained. Layouts of several
  equal grids share it.

  Source: arXiv 2212.09748; facebookresearch/mae, util/pos_embed.py.

  Attributes:
    width: d, a multiple of 4.
  """

  width: Width

  @nn.compact
  def __call__(self, layout: Layout, slots: Slots) -> jax.Array:
    """(e, d) float32 for the e slots of a layout without prefix.

    Raises:
      ValueError: grids of different sizes.
    """
    height, width = layout.grids[0]
    if set(layout.grids) != {(height, width)}:
      raise ValueError(
        f'config.backbone.position (FixedWaves): wanted equal grids, '
        f'config.layout has {layout.grids}'
      )

    def init(key, shape, dtype=jnp.float32):
      del key
      quarter = shape[1] // 4
      frequency = 10000.0 ** (-np.arange(quarter) / quarter)
      y, x = np.mgrid[:height, :width].reshape(2, -1, 1)
      waves = [f(at * frequency) for at in (x, y) for f in (np.sin, np.cos)]
      return jnp.asarray(np.concatenate(waves, 1), dtype)

    shape = (height * width, self.width)
    table = fixed(self, 'grid', init, (None, 'embed'), shape)
    token = take(layout.token, slots.index) % (height * width)
    return jnp.asarray(table)[token]
