"""Helpers of the train loop: metric windows, periods, signals."""

import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from arvision.metrics import Mean


class Window:
  """Means of metrics over the steps since the last log line."""

  def __init__(self):
    self._means: dict[str, Mean] = {}

  def add(self, metrics: Mapping[str, float]) -> None:
    """Adds the metrics of one step."""
    for name, value in metrics.items():
      before = self._means.get(name, Mean(0.0, 0.0))
      self._means[name] = Mean(before.total + value, before.weight + 1)

  def means(self) -> dict[str, float]:
    """Returns the means and resets the window."""
    means = {k: float(m.total / m.weight) for k, m in self._means.items()}
    self._means = {}
    return means

  def get_state(self) -> dict[str, Any]:
    """JSON values."""
    return {'means': {k: [m.total, m.weight] for k, m in self._means.items()}}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Restores the result of `get_state`."""
    if 'sums' in state:  # checkpoints of version 0.1
      means = {k: (v, state['count']) for k, v in state['sums'].items()}
    else:
      means = dict(state['means'])
    if not all(isinstance(x, (int, float)) for m in means.values() for x in m):
      raise ValueError(f'sums of metrics that are no numbers: {state}')
    self._means = {k: Mean(*m) for k, m in means.items()}


def due(step: int, every: int, total: int) -> bool:
  """Whether a periodic action is due after a step: regularly and at the end.

  Args:
    step: optimizer steps taken.
    every: period in steps; 0 = never.
    total: steps of the run.
  """
  return bool(every) and (step % every == 0 or step == total)


class Preemption:
  """Records SIGTERM and SIGINT, so that the loop can save before it ends.

  A second signal of either kind has its default effect. With several processes
  only one of them may get SIGTERM: JAX then agrees on a step at which all of
  them stop.
  """

  _SIGNALS = (signal.SIGTERM, signal.SIGINT)

  def __init__(self):
    self.received: int | None = None
    self._before: dict[int, Any] = {}

  def __enter__(self) -> 'Preemption':
    if jax.process_count() > 1:
      return self  # JAX has its own handler of SIGTERM there
    for number in self._SIGNALS:
      try:
        self._before[number] = signal.signal(number, self._note)
      except ValueError:  # not the main thread, which alone gets signals
        return self
    return self

  def __exit__(self, *_) -> None:
    self._restore()

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}

  def _note(self, number: int, frame: FrameType | None) -> None:
    del frame
    self.received = number
    self._restore()

  def reached(self, step: int) -> bool:
    """Whether to stop after this step; the same in all processes."""
    if jax.process_count() > 1:
      if multihost_utils.reached_preemption_sync_point(step):
        self.received = self.received or signal.SIGTERM
        return True
      return False
    return self.received is not None
