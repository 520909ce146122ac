"""Layouts made of another layout: two streams of it, or copies in a row."""

import functools

import numpy as np

from arvision.layouts.base import Layout
from arvision.ranges import Few


@functools.cache
def two_stream(layout: Layout, noisy_first: bool = False) -> Layout:
  """A clean and a noisy copy of every slot (ACDiT, BD3LM).

  Noisy slots attend to the clean slots of past entities and to their own
  entity. Clean slots attend to clean slots only. Noisy slots predict the
  tokens.

  Args:
    layout: a layout without prefix slots, with one slot per token.
    noisy_first: whether the noisy copy comes first (BD3LM) or last (ACDiT).

  Raises:
    ValueError: the layout has prefix slots.
  """
  if layout.prefix:
    raise ValueError('two_stream wants a layout without prefix slots')
  n = layout.slots
  streams = (1, 0) if noisy_first else (0, 1)
  shift = 0 if noisy_first else n
  return Layout(
    prefix=0,
    entity=np.tile(layout.entity, 2),
    stream=np.repeat(np.array(streams, np.int32), n),
    token=np.tile(layout.token, 2),
    coords=np.tile(layout.coords, (2, 1)),
    readout=np.where(layout.readout >= 0, layout.readout + shift, -1),
    grids=layout.grids,
    window=layout.window,
  )


@functools.cache
def repeated(layout: Layout, count: Few) -> Layout:
  """`count` copies of a layout one after another (ARFlow's images of a class).

  The entities of a copy follow those of the copy before it, and its tokens too.

  Args:
    layout: a layout of one stream without prefix slots.
    count: copies.

  Raises:
    ValueError: the layout has prefix slots or two streams.
  """
  if layout.prefix or layout.two_streams:
    raise ValueError(
      'repeated wants a layout of one stream without prefix slots'
    )
  copy = np.arange(count, dtype=np.int32)[:, None]

  def along(x, step):
    """x in every copy, numbered on; -1 stays."""
    moved = x[None] + step * copy.reshape(-1, *[1] * x.ndim)
    return (
      np.where(x >= 0, moved, -1).reshape(-1, *x.shape[1:]).astype(np.int32)
    )

  return Layout(
    prefix=0,
    entity=along(layout.entity, layout.steps),
    stream=np.tile(layout.stream, count),
    token=along(layout.token, layout.tokens),
    coords=np.tile(layout.coords, (count, 1)),
    readout=along(layout.readout, layout.slots),
    grids=layout.grids * count,
    window=layout.window,
  )
