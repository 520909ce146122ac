"""Axial attention: along one axis of a grid, all others being a batch."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from arvision.layers.attention import BlockInputs
from arvision.layers.cache import Cache
from arvision.ranges import Dtype, Few
from arvision.structs import Template

# Every place of a row sees every other.
_ROW = np.ones((1, 1, 1, 1), bool)


class AxialBlock(nn.Module):
  """A transformer block along the rows of a grid, then one along its columns.

  h w places cost h w (h + w) products of attention instead of (h w)².

  Rows are not masked. `BlockInputs.mask` is that of the columns, and so is the
  cache: a step computes whole rows, whose keys and values later rows see.

  Source: arXiv 1912.12180.

  Attributes:
    columns: w; n slots are the n / w rows of a grid, in raster order.
    block: template of a block.
    heads: attention heads.
    dtype: compute dtype.
  """

  columns: Few
  block: Template
  heads: Few = 1
  dtype: Dtype = jnp.float32

  def empty_cache(self, batch: int, slots: int, width: int) -> Cache | None:
    """The cache of the columns of b grids of so many rows."""
    block = self.block(heads=self.heads, dtype=self.dtype, parent=None)
    return block.empty_cache(batch * self.columns, slots, width)

  @nn.compact
  def __call__(self, x, drop, inputs: BlockInputs, cache=None):
    """x (b, n, d) -> (b, n, d) and the cache with the new rows."""
    batch, count, width = x.shape
    grid = batch, count // self.columns, self.columns, width
    make = {'heads': self.heads, 'dtype': self.dtype}
    row = inputs.replace(mask=_ROW)
    x = x.reshape(-1, self.columns, width)  # (b h, w, d)
    x, _ = self.block(**make, name='row')(x, drop, row)
    x = (
      x.reshape(grid).swapaxes(1, 2).reshape(-1, grid[1], width)
    )  # (b w, h, d)
    x, cache = self.block(**make, name='column')(x, drop, inputs, cache)
    x = x.reshape(batch, self.columns, grid[1], width).swapaxes(1, 2)
    return x.reshape(batch, count, width), cache
