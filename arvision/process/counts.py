"""How many steps an inner loop takes at every step of the outer one (DiSA).

Entities that are drawn late are nearly determined by the earlier ones, so their
noise can be taken away in fewer steps.

Source: arXiv 2505.20297; Qinyu-Allen-Zhao/DiSA.
"""

import dataclasses
import math
from typing import Protocol


class Counts(Protocol):
  """Inner steps as a function of progress."""

  def __call__(self, s: int, steps: int) -> int:
    """Inner steps at step s of `steps`, both static."""


@dataclasses.dataclass(frozen=True)
class Same:
  """As many at every step.

  Attributes:
    count: inner steps.
  """

  count: int

  def __call__(self, s, steps):
    return self.count


@dataclasses.dataclass(frozen=True)
class Falling:
  """From `first` at the first step down to `last` at the last.

  Attributes:
    first: inner steps at the first step.
    last: at the last one.
  """

  first: int
  last: int

  def __post_init__(self):
    if not 1 <= self.last <= self.first:
      raise ValueError(
        f'first={self.first}, last={self.last}: wanted 1 <= last <= first'
      )

  def share(self, rest: float) -> float:
    """Share of the way from `last` to `first`, given that of the steps left."""
    return rest

  def __call__(self, s, steps):
    rest = (steps - 1 - s) / max(steps - 1, 1)
    return int(self.share(rest) * (self.first - self.last) + self.last)


class Cosine(Falling):
  """The same along half a cosine."""

  def share(self, rest):
    return 0.5 * (1 + math.cos(math.pi * (1 - rest)))


class TwoStage(Falling):
  """`first` for the first half of the steps, then `last`."""

  def share(self, rest):
    return float(rest > 0.5)
