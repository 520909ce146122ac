"""The two-stream doubling of any layout."""

import functools

import numpy as np

from arvision.layouts.base import Layout


@functools.cache
def two_stream(layout: Layout, noisy_first: bool = False) -> Layout:
  """A clean and a noisy copy of every slot (ACDiT, BD3LM).

  Noisy slots attend to the clean slots of past entities and to their own entity.
  Clean slots attend to clean slots only. Noisy slots predict the tokens.

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
