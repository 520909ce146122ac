"""Layouts of 1D tokens, and the two-stream doubling of any layout."""

import functools

import numpy as np

from arvision.layouts.base import NO_TOKEN, Layout
from arvision.ranges import Count, Natural


@functools.cache
def line(
  length: Count,
  group: Count = 1,
  prefix: Natural = 1,
  longest: Count | None = None,
) -> Layout:
  """1D tokens, one or a group per step (TiTok, FlexTok, JPEG-LM).

  The slots of an entity carry the tokens of the entity before it; the first
  `group` slots are filled by the condition.

  Args:
    length: tokens.
    group: tokens per step; must divide `length`.
    prefix: condition slots, at least `group`.
    longest: see `Layout`.

  Raises:
    ValueError: the group does not divide the length or exceeds the prefix.
  """
  if length % group or prefix < group:
    raise ValueError(
      f'groups of {group} need a length they divide (got {length}) and a '
      f'prefix of at least {group} (got {prefix})'
    )
  lead = prefix - group
  token = np.arange(length, dtype=np.int32)
  carried = token[:-group] if length > group else token[:0]
  entity = np.concatenate([np.arange(-lead, 0), token // group])
  coords = np.concatenate(
    [np.full((prefix, 1), np.nan), carried[:, None].astype(np.float32)]
  )
  return Layout(
    prefix=prefix,
    entity=entity.astype(np.int32),
    stream=np.zeros(lead + length, np.int32),
    token=np.concatenate([np.full(prefix, NO_TOKEN, np.int32), carried]),
    coords=coords.astype(np.float32),
    readout=(lead + token)[:, None],
    grids=((1, length),),
    longest=longest,
  )


@functools.cache
def blocks(length: Count, block: Count) -> Layout:
  """1D tokens in blocks, every token in its own slot (block diffusion).

  Raises:
    ValueError: the block does not divide the length.
  """
  if length % block:
    raise ValueError(f'blocks of {block} do not divide {length} tokens')
  token = np.arange(length, dtype=np.int32)
  return Layout(
    prefix=0,
    entity=token // block,
    stream=np.zeros(length, np.int32),
    token=token,
    coords=token[:, None].astype(np.float32),
    readout=token[:, None],
    grids=((1, length),),
  )


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
