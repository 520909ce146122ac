"""The noise levels that a sampler goes through, from noise to data."""

import dataclasses
from typing import Protocol

import numpy as np


class Levels(Protocol):
  """Levels of a number of solver steps."""

  def __call__(self, count: int) -> np.ndarray:
    """(steps + 1,) float32 from 1 to 0, for a static count of steps."""


@dataclasses.dataclass(frozen=True)
class Even:
  """Steps of equal length."""

  def __call__(self, count):
    return np.linspace(1, 0, count + 1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class TwoSpeeds:
  """Half of the steps down to `knee`, the others from `after` on (FlowAR).

  An odd count takes one step less than it says. Counts in `even` have equal
  steps: the count alone changes from one family of levels to the other.

  Source: OliverRensu/FlowAR, its Euler sampler.

  Attributes:
    knee: last level of the first half.
    after: first level of the second half.
    even: counts with steps of equal length.
  """

  knee: float = 0.3
  after: float = 0.25
  even: tuple[int, ...] = (50,)

  def __post_init__(self):
    if not 1 > self.knee > self.after > 0:
      raise ValueError(
        f'knee={self.knee}, after={self.after}: wanted 1 > knee > after > 0'
      )

  def __call__(self, count):
    if count in self.even:
      return Even()(count)
    if count < 2:
      raise ValueError(
        f'{count} steps at two speeds: wanted 2 at least; change the numbers of '
        'config.head.counts, or config.head.spacing'
      )
    half = count // 2
    first = np.linspace(1, self.knee, half)
    second = np.linspace(self.after, 0, half + 1)
    return np.concatenate([first, second]).astype(np.float32)
