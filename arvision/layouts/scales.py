"""Next-scale prediction: entities are the grids of a pyramid."""

import functools
import math

import numpy as np

from arvision.layouts.base import NO_TOKEN, Layout
from arvision.ranges import Side

Grids = tuple[Side | tuple[Side, Side], ...]
# Point of a token that its coordinates refer to, from its upper left corner.
ANCHORS = {'centre': 0.5, 'corner': 0.0}


def as_grids(scales: Grids) -> tuple[tuple[int, int], ...]:
  """Sides or (height, width) pairs -> pairs."""
  return tuple(
    (int(s), int(s)) if isinstance(s, int) else (int(s[0]), int(s[1]))
    for s in scales
  )


@functools.cache
def scales(scales: Grids, start: bool = True, anchor: str = 'centre') -> Layout:
  """Next-scale prediction (VAR, FlexVAR, FlowAR).

  Slot i predicts token i of the concatenated pyramid, from small to large.

  Args:
    scales: sides or (height, width) of every scale.
    start: whether the slots of the first scale are prefix slots that the
      condition fills (VAR); otherwise the feed fills them.
    anchor: point of a token that its coordinates refer to, in units of the
      largest scale: 'centre', or the upper left 'corner' (FlowAR).

  Raises:
    ValueError: no scales, or an unknown anchor.
  """
  grids = as_grids(scales)
  if not grids:
    raise ValueError('scales is empty')
  if anchor not in ANCHORS:
    raise ValueError(f"anchor='{anchor}': wanted one of {tuple(ANCHORS)}")
  sizes = [math.prod(grid) for grid in grids]
  tokens, prefix = sum(sizes), sizes[0] if start else 0
  # In units of the largest scale, equal positions have equal coordinates.
  height, width = grids[-1]
  inside = ANCHORS[anchor]
  coords = []
  for h, w in grids:
    y, x = np.mgrid[:h, :w] + inside
    coords.append(np.stack([y * height / h, x * width / w], -1).reshape(-1, 2))
  token = np.arange(tokens, dtype=np.int32)
  return Layout(
    prefix=prefix,
    entity=np.repeat(np.arange(len(grids), dtype=np.int32), sizes),
    stream=np.zeros(tokens, np.int32),
    token=np.where(token < prefix, NO_TOKEN, token).astype(np.int32),
    coords=np.concatenate(coords).astype(np.float32) - np.float32(inside),
    readout=token[:, None],
    grids=grids,
  )
