"""The two-stream doubling of any layout."""

import functools

import numpy as np

from arvision.layouts.base import Layout


@functools.cache
def two_stream(layout: Layout, noisy_first: bool = False) -> Layout:
  """A clean and a noisy copy of every slot (ACDiT, BD3LM).

  Noisy slots see the clean slots of past entities and their own entity; clean
  slots see clean slots only. Tokens are read from the noisy stream.

  Args:
    layout: a layout without prefix in which every token has its own slot.
    noisy_first: order of the halves (BD3LM True, ACDiT False).

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
