"""Positions: learned per slot, and rotations from coordinates."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.param import normal, param
from arvision.layers.resize import resize
from arvision.layouts.base import Layout, take
from arvision.ranges import AtLeast0, Count, Positive, Side, Width
from arvision.structs import Slots


class Learned(nn.Module):
  """One vector per slot, and one per entity (VAR's pos_1LC and lvl_embed).

  Attributes:
    width: d.
    std: standard deviation at the start.
    entities: whether every entity adds a vector of its own.
  """

  width: Width
  std: AtLeast0 = 0.02
  entities: bool = False

  @nn.compact
  def __call__(self, layout: Layout, slots: Slots) -> jax.Array:
    """(e, d) float32 for the e slots."""
    index = slots.index

    def table(name, rows):
      shape = (rows, self.width)
      init = normal(self.std)
      return jnp.asarray(param(self, name, init, (None, 'embed'), shape))

    x = table('slot', layout.slots)[index]
    if self.entities:
      entity = jnp.asarray(np.maximum(layout.entity, 0))[index]
      x = x + table('entity', layout.steps)[entity]
    return x


class PerEntity(nn.Module):
  """One vector per entity (Infinity's lvl_embed).

  Attributes:
    width: d.
    rows: of the table; those after the entities of the layout are not used.
    std: standard deviation at the start.
  """

  width: Width
  rows: Count
  std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, layout: Layout, slots: Slots) -> jax.Array:
    """(e, d) float32 for the e slots.

    Raises:
      ValueError: fewer rows than entities.
    """
    if self.rows < layout.steps:
      raise ValueError(
        f'config.backbone.position.rows={self.rows}: the layout has '
        f'{layout.steps} steps; wanted as many or more'
      )
    shape = (self.rows, self.width)
    table = param(self, 'entity', normal(self.std), (None, 'embed'), shape)
    entity = np.maximum(layout.entity, 0)
    return jnp.asarray(table)[take(entity, slots.index)]


class PerToken(nn.Module):
  """One vector per token, whichever slots carry it (two streams).

  Attributes:
    width: d.
    std: standard deviation at the start.
  """

  width: Width
  std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, layout: Layout, slots: Slots) -> jax.Array:
    """(e, d) float32 for the e slots of a layout without prefix."""
    shape = (layout.tokens, self.width)
    table = param(self, 'token', normal(self.std), (None, 'embed'), shape)
    return jnp.asarray(table)[take(layout.token, slots.index)]


class RowsAndColumns(nn.Module):
  """A vector of the row and one of the column of a token, summed.

  Tokens are counted over a grid of `rows` × `columns`, which may be larger than
  that of the layout: in published weights of VQ-Diffusion, 16 × 16 tokens are the
  first 256 places of 32 × 32.

  Attributes:
    width: d.
    rows, columns: of the two tables.
    std: standard deviation at the start.
  """

  width: Width
  rows: Side
  columns: Side
  std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, layout: Layout, slots: Slots) -> jax.Array:
    """(e, d) float32 for the e slots of a layout without prefix.

    Raises:
      ValueError: fewer places than tokens.
    """
    if self.rows * self.columns < layout.tokens:
      raise ValueError(
        f'config.backbone.position: rows={self.rows} and columns={self.columns} '
        f'have fewer places than the {layout.tokens} tokens of config.layout'
      )

    def table(name, rows):
      init, shape = normal(self.std), (rows, self.width)
      return jnp.asarray(param(self, name, init, (None, 'embed'), shape))

    row, column = np.divmod(np.maximum(layout.token, 0), self.columns)
    rows, columns = table('rows', self.rows), table('columns', self.columns)
    index = slots.index
    return rows[take(row, index)] + columns[take(column, index)]


class Resized(nn.Module):
  """One learned grid of positions, area-resized to the grid of every scale.

  It starts as waves: sin(y w) in even channels, cos(x w) in odd ones, with
  w = 10000^(-2 i / d) of the i-th pair.

  Source: arXiv 2502.20313; jiaosiyu1999/FlexVAR, models/flexvar.py.

  Attributes:
    width: d.
    side: of the map; scales may be larger.
  """

  width: Width
  side: Side = 32

  @nn.compact
  def __call__(self, layout: Layout, slots: Slots) -> jax.Array:
    """(e, d) float32 for the e slots of a layout of scales."""
    shape = (self.side, self.side, self.width)
    map_ = param(self, 'map', _waves, (None, None, 'embed'), shape)
    rows = [
      resize(jnp.asarray(map_)[None], grid, 'area').reshape(-1, self.width)
      for grid in layout.grids
    ]
    return jnp.concatenate(rows)[slots.index]


def _waves(key, shape, dtype=jnp.float32):
  del key
  height, width, d = shape
  frequency = 10000.0 ** (-np.arange(0, d, 2) / d)
  y, x = np.mgrid[:height, :width, :1][:2]
  waves = np.stack([np.sin(y * frequency), np.cos(x * frequency)], -1)
  return jnp.asarray(waves.reshape(height, width, -1)[..., :d], dtype)


class Aimed(nn.Module):
  """Vectors of the position that a slot carries and of the one it predicts.

  Rows are counted over the prefix, then over the grid in raster order, so that
  an order of prediction permutes them (RAR's pos_embed and
  target_aware_pos_embed). A slot that predicts nothing has no second vector.

  Source: arXiv 2411.00776; bytedance/1d-tokenizer, modeling/rar.py.

  Attributes:
    width: d.
    rows: of both tables; those after the grid are not used.
    std: standard deviation at the start.
  """

  width: Width
  rows: Count
  std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, layout: Layout, slots: Slots) -> jax.Array:
    """(e, d) or (b, e, d) float32 for the e slots."""
    if self.rows < layout.prefix + layout.tokens:
      raise ValueError(
        f'{self.rows} positions for {layout.prefix} prefix slots and '
        f'{layout.tokens} tokens; change config.backbone.position.rows'
      )

    def table(name):
      shape = (self.rows, self.width)
      init = normal(self.std)
      return jnp.asarray(param(self, name, init, (None, 'embed'), shape))

    index, (position, target) = slots.index, positions(layout, slots)
    position = jnp.where(position < 0, index, layout.prefix + position)
    own = table('place')[position]
    targets = table('aim')[layout.prefix + jnp.maximum(target, 0)]
    return own + jnp.where((target >= 0)[..., None], targets, 0)


def positions(layout: Layout, slots: Slots) -> tuple[Any, Any]:
  """Raster indices of the tokens that slots carry and predict, -1 for none.

  Returns:
    (n,) or (b, n) int32 twice.
  """
  own, target = slots.position, slots.target_position
  if own is None:
    own = take(layout.token, slots.index)
  if target is None:
    target = take(layout.target_position, slots.index)
  return own, target


def rotations(coords: Any, dim: int, base: float) -> Any:
  """Rotary table of slots with coordinates on several axes.

  The dim / 2 frequencies are split among the axes in equal parts, in order: axis a
  rotates pair i by coords[a] * base^(-2i / (dim / axes)). Slots without a position
  (NaN) get cos = sin = 0, which zeroes q and k; LlamaGen's released weights were
  trained with that, not with the identity.

  Args:
    coords: (n, axes) float32, numpy or JAX; so is the table.
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
  # Rounded as in the official code: far positions show the last digit.
  frequency = 1 / np.float32(base) ** (
    np.arange(0, part, 2, dtype=np.float32) / part
  )
  angle = (coords[:, :, None] * frequency).reshape(len(coords), dim // 2)
  xp = coords.__array_namespace__()
  table = xp.stack([xp.cos(angle), xp.sin(angle)])
  return xp.where(xp.isnan(table), 0.0, table).astype(np.float32)


def rotate(x: jax.Array, table: jax.Array) -> jax.Array:
  """Rotates interleaved pairs of x (b, h, e, k) by table (2, e, k / 2)."""
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  cos, sin = table
  a, b = pairs[..., 0], pairs[..., 1]
  turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], -1)
  return turned.reshape(x.shape).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Rotary:
  """Rotary positions, from the coordinates of a layout.

  Attributes:
    base: frequency base.
  """

  base: Positive = 10000.0

  def __call__(self, layout: Layout, slots: Slots, dim: int) -> Any:
    """(2, e, dim / 2) for the e slots; (2, b, 1, e, dim / 2) for (b, e) of them."""
    table = self.at(layout.coords, dim)[:, slots.index]
    return table[:, :, None] if slots.index.ndim > 1 else table

  def at(self, coords: Any, dim: int) -> jax.Array:
    """(2, t, dim / 2) for tokens with coordinates (t, axes)."""
    return jnp.asarray(rotations(coords, dim, self.base))


@dataclasses.dataclass(frozen=True)
class InterpolatedRotary(Rotary):
  """Cosines and sines of whole coordinates, linearly interpolated between them.

  They do not rotate alone: between whole coordinates they shorten, too.

  Source: FoundationVision/Infinity, its rope2d_normalized_by_hw = 1.
  """

  def at(self, coords: Any, dim: int) -> jax.Array:
    coords = jnp.asarray(coords)
    low = jnp.floor(coords)
    share = jnp.repeat(coords - low, dim // 2 // coords.shape[1], 1)
    first, second = super().at(low, dim), super().at(low + 1, dim)
    return (1 - share) * first + share * second


@dataclasses.dataclass(frozen=True)
class AimedRotary(Rotary):
  """Rotary positions of the token that a slot carries and of its target.

  Slots without a token are not rotated. For `layers.attention.AimedAttention`.

  Source: arXiv 2602.09024 (BAR).
  """

  def __call__(self, layout: Layout, slots: Slots, dim: int) -> Any:
    """Tables (2, 1 or b, 1, e, dim / 2) of own and target positions."""
    height, width = layout.grids[0]
    grid = np.stack(np.divmod(np.arange(height * width), width), -1)
    table = rotations(grid.astype(np.float32), dim, self.base)
    none = np.stack([np.ones(dim // 2), np.zeros(dim // 2)])[:, None]
    # The last row, -1, is that of no token.
    table = jnp.asarray(np.concatenate([table, none], 1), jnp.float32)

    def of(position):
      position = jnp.atleast_2d(jnp.asarray(position))
      return table[:, position][:, :, None]

    own, target = positions(layout, slots)
    return of(own), of(target)


@dataclasses.dataclass(frozen=True)
class Halves:
  """Rotary tables of whole axes, for `layers.attention.HalvesAttention`.

  Every axis has a share of the channels of a head, and a table [f, f] of its
  frequencies f, which fall from 1 to 1 / base, both included. The tables of the
  axes follow one another, yet channel i is rotated with i + k / 2. So the cosine
  of one axis meets the sine of another, and what comes out is no rotation; the
  released weights of ACDiT were trained with that.

  Source: arXiv 2412.07720; thunlp/ACDiT, rope.py. The base of an axis is that of
    the code, 100 (floor(8 length / pi / 100) + 1).

  Attributes:
    shares: of the axes; None: equal ones.
  """

  shares: tuple[Count, ...] | None = None

  def __call__(self, layout: Layout, slots: Slots, dim: int) -> Any:
    """(2, e, dim) cosines and sines for the e slots.

    Raises:
      ValueError: the head cannot be split so.
    """
    grid = layout.grids[0]
    shares = self.shares or (1,) * len(grid)
    part, rest = divmod(dim, 2 * sum(shares))
    if rest or len(shares) != len(grid):
      raise ValueError(
        f'config.backbone.rotary.shares={shares}: wanted one for each of '
        f'{len(grid)} axes, and heads of a multiple of {2 * sum(shares)} '
        f'channels, got {dim}'
      )
    angles = []
    for position, length, share in zip(layout.coords.T, grid, shares):
      base = np.float32(100 * (int(8 * length / np.pi) // 100 + 1))
      # In float32, as in the official code.
      exponent = np.linspace(0, dim, part * share, dtype=np.float32) / dim
      angles += [position[:, None] * (1 / base**exponent)] * 2
    angle = np.concatenate(angles, 1)
    table = np.stack([np.cos(angle), np.sin(angle)])
    return jnp.asarray(table, jnp.float32)[:, slots.index]


def rotate_halves(x: jax.Array, table: jax.Array) -> jax.Array:
  """Rotates channels i and i + k / 2 of x (b, h, e, k) by table (2, e, k)."""
  first, second = jnp.split(x.astype(jnp.float32), 2, -1)
  cos, sin = table
  turned = jnp.concatenate([-second, first], -1)
  return (x * cos + turned * sin).astype(x.dtype)
