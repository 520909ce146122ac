"""Positions: learned per slot, and rotations from coordinates."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.param import normal, param
from arvision.layouts.base import Layout


class Learned(nn.Module):
  """One vector per slot, and one per entity (VAR's pos_1LC and lvl_embed).

  Attributes:
    width: d.
    std: standard deviation at the start.
    entities: whether every entity adds a vector of its own.
  """

  width: int
  std: float = 0.02
  entities: bool = False

  @nn.compact
  def __call__(self, layout: Layout, index: Any) -> jax.Array:
    """(e, d) float32 for the slots `index` (e,) of a layout."""

    def table(name, rows):
      shape = (rows, self.width)
      init = normal(self.std)
      return jnp.asarray(param(self, name, init, (None, 'embed'), shape))

    x = table('slot', layout.slots)[index]
    if self.entities:
      entity = jnp.asarray(np.maximum(layout.entity, 0))[index]
      x = x + table('entity', layout.steps)[entity]
    return x


def rotations(coords: np.ndarray, dim: int, base: float) -> np.ndarray:
  """Rotary table of slots with coordinates on several axes.

  The dim / 2 frequencies are dealt to the axes in equal parts, the first axis
  first; axis a rotates pair i by coords[a] * base^(-2i / (dim / axes)). Slots
  without a position (NaN) get cos = sin = 0, which zeroes q and k: that is
  what LlamaGen's released weights were trained with, not the identity.

  Args:
    coords: (n, axes) float32.
    dim: size of a head, a multiple of 2 * axes.
    base: 10000 in the published models.

  Returns:
    (2, n, dim / 2) float32: cosines and sines.

  Raises:
    ValueError: the head cannot be split among the axes.

  Source: arXiv 2406.06525 (2D RoPE of LlamaGen).
  """
  axes = coords.shape[1]
  if dim % (2 * axes):
    raise ValueError(
      f'rotary heads of {dim} cannot be split into pairs for {axes} axes; '
      'choose a width and heads whose ratio is a multiple of '
      f'{2 * axes}'
    )
  part = dim // axes
  frequency = base ** (-np.arange(0, part, 2, dtype=np.float32) / part)
  angle = (coords[:, :, None] * frequency).reshape(len(coords), dim // 2)
  table = np.stack([np.cos(angle), np.sin(angle)])
  return np.where(np.isnan(table), 0.0, table).astype(np.float32)


def rotate(x: jax.Array, table: jax.Array) -> jax.Array:
  """Rotates interleaved pairs of x (b, h, e, k) by table (2, e, k / 2)."""
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  cos, sin = table
  a, b = pairs[..., 0], pairs[..., 1]
  turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], -1)
  return turned.reshape(x.shape).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Rotary:
  """Rotary positions of a backbone, from the coordinates of its layout.

  Attributes:
    base: frequency base.
  """

  base: float = 10000.0

  def __call__(self, layout: Layout, index: Any, dim: int) -> jax.Array:
    """(2, e, dim / 2) for the slots `index` (e,)."""
    return jnp.asarray(rotations(layout.coords, dim, self.base))[:, index]
