"""The time between two checkpoints, chosen by the run from the cost of a save.

Source: Young (1974), A first order approximation to the optimum checkpoint
  interval: sqrt(2 · cost of a save · mean time between failures).
"""

import collections
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from arvision.parallel import host

# Seconds that a save takes, until one was measured, and the least.
_COST, _LEAST = 1.0, 1e-3
# The median of so many saves counts: the first one of a start takes longer.
_SAVES = 5
# A choice that changes less than by this factor is not printed again.
_SAME = 1.5


class Interval:
  """Says after which steps a run saves because enough time has passed.

  Process 0 decides. It tells the others at steps that all of them know before,
  so that most steps need no communication.

  Attributes:
    between_failures: seconds between two failures; 0 turns it off.
  """

  def __init__(
    self,
    between_failures: float,
    costs: Iterable[float] = (),
    clock: Callable[[], float] = time.monotonic,
    as_first: Callable[[Any], Any] = host.as_first,
  ):
    """Starts without a step; see `start`.

    Args:
      between_failures: mean time between failures in seconds; 0 for never.
      costs: seconds of earlier saves of the run.
      clock: seconds.
      as_first: value -> the value of process 0.
    """
    self.between_failures = between_failures
    self._costs = collections.deque(costs, maxlen=_SAVES)
    self._clock, self._as_first = clock, as_first
    self._step = self._look = 0
    self._since = self._said = 0.0

  @property
  def cost(self) -> float:
    """Seconds that a save holds up the steps."""
    found = float(np.median(self._costs)) if self._costs else _COST
    return max(_LEAST, found)

  @property
  def seconds(self) -> float:
    """The chosen time between two saves; 0: none was chosen."""
    return math.sqrt(2 * self.cost * self.between_failures)

  def start(self, step: int) -> None:
    """Begins to count time after a step whose state is saved."""
    self._step, self._since = step, self._clock()
    self._look = step + 1

  def due(self, step: int) -> bool:
    """Whether to save after a step; the same in all processes."""
    if not self.between_failures or step < self._look:
      return False
    passed, taken = self._clock() - self._since, step - self._step
    # Half a step too early is as good as half a step too late.
    left = (self.seconds - passed) * taken / max(passed, 1e-9)
    # Not too far: the steps so far tell little of later ones.
    steps = min(max(0, round(left)), max(1, taken // 2))
    steps = int(self._as_first(np.asarray(steps)))
    self._look = step + steps
    return not steps

  def saved(self, step: int, cost: float) -> str:
    """Notes a save and counts anew; a line about a new choice, or ''.

    Args:
      step: step of the saved state.
      cost: seconds that the save took.
    """
    self._costs.append(cost)
    self.start(step)
    ratio = self.seconds / self._said if self._said else math.inf
    if not self.between_failures or 1 / _SAME < ratio < _SAME:
      return ''
    self._said = self.seconds
    return (
      f'a checkpoint at least every {self.seconds:.3g} s: a save takes '
      f'{self.cost:.2g} s, and config.checkpoint.hours_between_failures='
      f'{self.between_failures / 3600:.3g}'
    )
