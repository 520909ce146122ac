"""Layouts of one token grid: next token, diagonals, cells, subsamples.

In `raster`, `permuted` and `diagonals` a slot carries a past token and predicts
a later one: n is the prefix plus all tokens but the last. In `cells`,
`subsample` and `whole` every token has a slot of its own, which carries it in a
noisy or masked form.
"""

import dataclasses
import functools

import numpy as np

from arvision.layouts.base import NO_TOKEN, Layout
from arvision.ranges import Count, Few, Natural, Side


def _grid_coords(height, width):
  y, x = np.mgrid[:height, :width]
  return np.stack([y.ravel(), x.ravel()], 1).astype(np.float32)


def _behind_prefix(prefix, coords):
  none = np.full((prefix, coords.shape[1]), np.nan, np.float32)
  return np.concatenate([none, coords])


@functools.cache
def raster(
  height: Side,
  width: Side,
  prefix: Natural = 1,
  longest: Count | None = None,
  prefix_aims: bool = False,
) -> Layout:
  """Next-token prediction, row by row (LlamaGen).

  Slot p - 1 + i carries token i - 1 and predicts token i.

  Args:
    height, width: token grid.
    prefix: number of condition slots.
    longest, prefix_aims: see `Layout`.
  """
  order = tuple(range(height * width))
  return permuted(height, width, order, prefix, longest, prefix_aims)


@functools.cache
def channels(height: Side, width: Side, channels: Few = 1) -> Layout:
  """Next-pixel prediction, all of a channel before the next (Axial Transformer).

  The layout of `raster` over the channels below one another, with one slot of the
  condition.

  Args:
    height, width: of a channel.
    channels: grids of the tokenizer.
  """
  below = raster(channels * height, width)
  coords = below.coords % np.array([height, width], np.float32)
  grids = ((height, width),) * channels
  return dataclasses.replace(below, coords=coords, grids=grids)


@functools.cache
def permuted(
  height: Side,
  width: Side,
  order: tuple[Natural, ...] | str = 'snake',
  prefix: Natural = 1,
  longest: Count | None = None,
  prefix_aims: bool = False,
) -> Layout:
  """Next-token prediction along a fixed order of the grid.

  Args:
    height, width: token grid.
    order: raster indices in order of prediction, or 'snake' (every other row
      runs backwards). Random orders per example belong to the feed, which
      permutes tokens and coordinates over `raster`.
    prefix: number of condition slots.
    longest, prefix_aims: see `Layout`.

  Raises:
    ValueError: `order` is not a permutation of the grid.
  """
  tokens = height * width
  if order == 'snake':
    rows = np.arange(tokens).reshape(height, width)
    rows[1::2] = rows[1::2, ::-1]
    order = tuple(rows.ravel())
  if sorted(order) != list(range(tokens)):
    raise ValueError(
      f'order is not a permutation of the {tokens} tokens of a '
      f'{height} x {width} grid'
    )
  path = np.array(order, np.int32)
  carried = path[:-1]
  entity = np.arange(1 - prefix, tokens, dtype=np.int32)
  readout = np.empty((tokens, 1), np.int32)
  readout[path, 0] = np.arange(prefix - 1, prefix - 1 + tokens)
  return Layout(
    prefix=prefix,
    entity=entity,
    stream=np.zeros_like(entity),
    token=np.concatenate([np.full(prefix, NO_TOKEN, np.int32), carried]),
    coords=_behind_prefix(prefix, _grid_coords(height, width)[carried]),
    readout=readout,
    grids=((height, width),),
    longest=longest,
    prefix_aims=prefix_aims,
  )


@functools.cache
def diagonals(height: Side, width: Side, prefix: Natural = 1) -> Layout:
  """Next-diagonal prediction with a right and a down branch (NAR).

  Slots carry tokens, diagonal after diagonal; the slot of (i, j) predicts
  (i, j + 1) in branch 0 and (i + 1, j) in branch 1. The last prefix slot
  predicts (0, 0) in both.

  Args:
    height, width: token grid.
    prefix: number of condition slots.

  Differs: the official mask has a slot for the last token too, which predicts
  nothing.
  """
  tokens = height * width
  y, x = np.divmod(np.arange(tokens, dtype=np.int32), width)
  path = np.argsort(y + x, kind='stable').astype(np.int32)
  slot = np.empty(tokens, np.int32)
  slot[path] = prefix + np.arange(tokens, dtype=np.int32)
  readout = np.full((tokens, 2), -1, np.int32)
  readout[x > 0, 0] = slot[np.flatnonzero(x > 0) - 1]
  readout[y > 0, 1] = slot[np.flatnonzero(y > 0) - width]
  readout[0] = prefix - 1
  carried = path[:-1]
  entity = np.concatenate([np.arange(1 - prefix, 1), (y + x + 1)[carried]])
  return Layout(
    prefix=prefix,
    entity=entity.astype(np.int32),
    stream=np.zeros(len(entity), np.int32),
    token=np.concatenate([np.full(prefix, NO_TOKEN, np.int32), carried]),
    coords=_behind_prefix(prefix, _grid_coords(height, width)[carried]),
    readout=readout,
    grids=((height, width),),
    pad_to=min(height, width),
  )


def _own_slots(height, width, entity):
  """One slot per token, sorted by entity, in raster order within an entity."""
  token = np.argsort(entity, kind='stable').astype(np.int32)
  return Layout(
    prefix=0,
    entity=entity[token].astype(np.int32),
    stream=np.zeros(height * width, np.int32),
    token=token,
    coords=_grid_coords(height, width)[token],
    readout=np.argsort(token).astype(np.int32)[:, None],
    grids=((height, width),),
  )


@functools.cache
def cells(height: Side, width: Side, cell: tuple[Side, Side]) -> Layout:
  """Next-cell prediction (xAR): entities are cells in raster order.

  Args:
    height, width: token grid.
    cell: (height, width) of a cell.

  Raises:
    ValueError: the cell does not tile the grid.
  """
  if height % cell[0] or width % cell[1]:
    raise ValueError(
      f'cells of {cell[0]} x {cell[1]} do not tile a {height} x {width} grid'
    )
  y, x = np.divmod(np.arange(height * width), width)
  entity = y // cell[0] * (width // cell[1]) + x // cell[1]
  return _own_slots(height, width, entity)


@functools.cache
def subsample(height: Side, width: Side, stride: tuple[Side, Side]) -> Layout:
  """Next-subsample prediction (xAR): entities are strided subgrids.

  Args:
    height, width: token grid.
    stride: (vertical, horizontal).

  Raises:
    ValueError: the stride does not tile the grid.
  """
  if height % stride[0] or width % stride[1]:
    raise ValueError(
      f'a stride of {stride[0]} x {stride[1]} does not tile a '
      f'{height} x {width} grid'
    )
  y, x = np.divmod(np.arange(height * width), width)
  return _own_slots(height, width, y % stride[0] * stride[1] + x % stride[1])


@functools.cache
def whole(
  height: Side, width: Side, prefix: Natural = 1, copies: Few = 1
) -> Layout:
  """The whole grid as one bidirectional entity (MaskGIT).

  The condition's slots belong to it too. The feed masks tokens, and the sampler
  chooses their order.

  Args:
    height, width: grid of places.
    prefix: slots of the condition.
    copies: tokens of a place, next to one another, with its coordinates.
  """
  tokens = height * width * copies
  token = np.arange(tokens, dtype=np.int32)
  none = np.full(prefix, NO_TOKEN, np.int32)
  coords = np.repeat(_grid_coords(height, width), copies, axis=0)
  return Layout(
    prefix=prefix,
    entity=np.zeros(prefix + tokens, np.int32),
    stream=np.zeros(prefix + tokens, np.int32),
    token=np.concatenate([none, token]),
    coords=_behind_prefix(prefix, coords),
    readout=(prefix + token)[:, None],
    grids=((height, width * copies),),
  )
