"""Next-scale prediction: entities are the grids of a pyramid."""

import functools
import math
from typing import Annotated

import numpy as np

from arvision.layouts.base import NO_TOKEN, Layout
from arvision.ranges import NOT_EMPTY, Natural, Side

Grid = Side | tuple[Side, Side]
Grids = Annotated[tuple[Grid, ...], NOT_EMPTY]
# What the coordinates of a token refer to, see `scales`.
ANCHORS = ('centre', 'corner', 'rounded', 'index', 'ends')


def as_grids(scales: Grids) -> tuple[tuple[int, int], ...]:
  """Sides or (height, width) pairs -> pairs."""
  return tuple(
    (int(s), int(s)) if isinstance(s, int) else (int(s[0]), int(s[1]))
    for s in scales
  )


@functools.cache
def scales(
  scales: Grids,
  start: bool = True,
  anchor: str = 'centre',
  units: tuple[Side, Side] | None = None,
  window: Natural | None = None,
) -> Layout:
  """Next-scale prediction (VAR, FlexVAR, FlowAR, Infinity, HMAR).

  Slot i predicts token i of the concatenated pyramid, from small to large.

  Args:
    scales: sides or (height, width) of every scale.
    start: whether the slots of the first scale are prefix slots that the
      condition fills (VAR); otherwise the feed fills them.
    anchor: point of a token that its coordinates refer to: its 'centre', its
      upper left 'corner' (FlowAR), or that 'rounded' to whole numbers, halves to
      even ones (Infinity); its 'index' in its own scale; or 'ends': the first and
      the last token of every scale lie at the ends of the grid.
    units: (height, width) of the grid in whose units coordinates are; None: the
      largest scale. Then equal positions of all scales have equal coordinates.
    window: earlier scales that a scale sees: 0 for none (HMAR), None for all.

  Raises:
    ValueError: no scales, or an unknown anchor.
  """
  grids = as_grids(scales)
  if not grids:
    raise ValueError('scales is empty')
  if anchor not in ANCHORS:
    raise ValueError(f"anchor='{anchor}': wanted one of {ANCHORS}")
  sizes = [math.prod(grid) for grid in grids]
  tokens, prefix = sum(sizes), sizes[0] if start else 0
  coords = []
  for grid in grids:
    axes = map(_axis, grid, units or grids[-1], (anchor, anchor))
    yx = np.meshgrid(*axes, indexing='ij')
    coords.append(np.stack(yx, -1).reshape(-1, 2))
  token = np.arange(tokens, dtype=np.int32)
  return Layout(
    prefix=prefix,
    entity=np.repeat(np.arange(len(grids), dtype=np.int32), sizes),
    stream=np.zeros(tokens, np.int32),
    token=np.where(token < prefix, NO_TOKEN, token).astype(np.int32),
    coords=np.concatenate(coords),
    readout=token[:, None],
    grids=grids,
    window=window,
  )


def _axis(count, units, anchor):
  """(count,) float32 coordinates along one side of a scale."""
  if anchor == 'index':
    return np.arange(count, dtype=np.float32)
  if anchor == 'rounded':  # in float32, as published: that decides halves
    return np.rint(
      np.arange(count, dtype=np.float32) * np.float32(units / count)
    )
  if anchor == 'ends':
    step = np.float32((units - 1) / max(count - 1, 1))
    return np.arange(count, dtype=np.float32) * step
  inside = 0.5 if anchor == 'centre' else 0.0
  points = (np.arange(count) + inside) * units / count
  return points.astype(np.float32) - np.float32(inside)
