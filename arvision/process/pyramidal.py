"""One flow trajectory in stages of growing resolution (pyramidal flow).

    stage s   from  (1 - high_s) up(x_(s-1)) + high_s noise_s
              to    (1 - low_s) x_s + low_s noise_s

x_s is the data at scale s, whose sides are twice those of scale s - 1, and `up`
repeats every token twice along both axes. The first stage starts from noise, the
last one ends at data. A stage starts from the end of the stage before it, which
is scaled, upsampled and given the detail of fresh noise. The result has white
noise again, since low_(s-1) = high_s / (2 - high_s).

Source: arXiv 2410.05954 (pyramidal flow matching), its equations for a stage of
  nearest upsampling.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.layers.resize import resize
from arvision.ranges import Share


@dataclasses.dataclass(frozen=True)
class Stages(Checked):
  """Windows of levels, one per scale.

  Attributes:
    starts: levels at which the stages after the first start, falling.
  """

  starts: tuple[Share, ...] = ()

  def __post_init__(self):
    super().__post_init__()
    levels = (1.0, *self.starts, 0.0)
    if any(a <= b for a, b in zip(levels, levels[1:])):
      raise ValueError(
        f'starts={self.starts}: wanted falling levels between 1 and 0'
      )

  def windows(self, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count,) float32 levels at which stages start, and at which they end.

    Args:
      count: stages.

    Raises:
      ValueError: there are more or fewer.
    """
    if len(self.starts) != count - 1:
      raise ValueError(
        f'stages.starts={self.starts}: wanted {count - 1} levels for {count} '
        'scales; change config.feed.stages and config.head.stages'
      )
    high = np.array([1.0, *self.starts])
    low = np.append(high[1:] / (2 - high[1:]), 0.0)
    return high.astype(np.float32), low.astype(np.float32)

  def level(self, share: Any, s: Any) -> jax.Array:
    """Levels of a share of the way back, 1 = the start of stage s, 0 = its end."""
    high, low = map(jnp.asarray, self.windows(len(self.starts) + 1))
    return low[s] + share * (high - low)[s]

  def start(
    self, before: jax.Array, noise: jax.Array, s: Any, grid: tuple[int, int]
  ) -> jax.Array:
    """Where stage s starts, (b, e, c) float32.

    Args:
      before: (b, e, c) the end of the stage before, as `end` gives it,
        upsampled; not read by the first stage.
      noise: (b, e, c) standard normal numbers.
      s: () number of the stage; traced or not.
      grid: (height, width) of the stage.
    """
    if any(side % 2 for side in grid):
      return noise  # no stage is before it
    high = jnp.asarray(self.windows(len(self.starts) + 1)[0])[s]
    x = noise.reshape(len(noise), *grid, -1)
    mean = resize(x, (grid[0] // 2, grid[1] // 2), 'area')
    detail = noise - resize(mean, grid, 'nearest').reshape(noise.shape)
    return jnp.where(s == 0, noise, (1 - high) * before + high * detail)

  def end(self, x: jax.Array, s: Any) -> jax.Array:
    """The end x (b, e, c) of stage s, () or (e,), scaled to data plus noise."""
    low = jnp.asarray(self.windows(len(self.starts) + 1)[1])
    return x / (1 - low[s])[..., None]


def noises(
  noise: jax.Array, grids: tuple[tuple[int, int], ...]
) -> list[jax.Array]:
  """The noise of all stages, (b, h, w, c) each, from that of the last.

  It is averaged over squares and scaled to standard normal numbers.

  Args:
    noise: (b, h, w, c) of the last grid.
    grids: of all stages, small to large.

  Raises:
    ValueError: a grid has not twice the sides of the one before.
  """
  for small, large in zip(grids, grids[1:]):
    if large != (2 * small[0], 2 * small[1]):
      raise ValueError(
        f'config.layout.scales: {small} is followed by {large}; stages of one '
        'flow want sides that double'
      )
  area = math.prod(grids[-1])
  return [
    resize(noise, grid, 'area') * np.float32((area / math.prod(grid)) ** 0.5)
    for grid in grids
  ]
