"""Stages: a bidirectional pass over all scales for every scale (Hi-MAR)."""

import functools

import numpy as np

from arvision.layouts import scales as pyramid
from arvision.layouts.base import NO_TOKEN, Layout
from arvision.layouts.scales import Grids
from arvision.ranges import Natural


@functools.cache
def stages(scales: Grids, prefix: Natural = 1) -> Layout:
  """Stage s predicts the tokens of scale s, from small to large.

  Every stage has slots of its own for the condition and for the tokens of all
  scales. Slots of one stage see one another and no other stage: what a stage knows
  of earlier ones, the backbone hands over (`backbones.stages.Stages`).

  Source: arXiv 2505.20288.

  Args:
    scales: sides or (height, width) of every scale.
    prefix: slots of the condition in every stage.
  """
  every = pyramid.scales(scales, start=False)
  count, tokens = every.steps, every.tokens
  none = np.full(prefix, NO_TOKEN, np.int32)
  nowhere = np.full((prefix, 2), np.nan, np.float32)
  own = np.concatenate([nowhere, every.coords])
  entity = np.repeat(np.arange(count, dtype=np.int32), prefix + tokens)
  first = (
    prefix + (prefix + tokens) * every.entity
  )  # of the stage that predicts
  return Layout(
    prefix=prefix,
    entity=entity,
    stream=np.zeros_like(entity),
    token=np.tile(np.concatenate([none, every.token]), count),
    coords=np.tile(own, (count, 1)),
    readout=(first + every.token)[:, None].astype(np.int32),
    grids=every.grids,
    window=0,
  )
