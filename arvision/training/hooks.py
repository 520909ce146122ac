"""What a loop watches for: bad numbers, signals, and its own pace."""

import math
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Diverged(RuntimeError):
  """Training stopped, since its numbers are not finite any more."""


def check_finite(
  metrics: Mapping[str, float], step: int, saved: int | None, workdir: Any
) -> None:
  """Stops a run whose loss or gradient is not a number.

  Args:
    metrics: of one step.
    step: optimizer steps taken, this one included.
    saved: step of the newest checkpoint, None without any.
    workdir: of the run, for the message.

  Raises:
    Diverged: with what to try.
  """
  bad = [
    name
    for name, value in metrics.items()
    if not math.isfinite(value)
    and (name.split('/')[0].endswith('loss') or 'gradient_norm' in name)
  ]
  if not bad:
    return
  kept = (
    f'the checkpoint of step {saved} is from before that and untouched'
    if saved is not None
    else 'there is no checkpoint yet'
  )
  raise Diverged(
    f'{bad[0]} was {metrics[bad[0]]} at step {step}, so training stopped; '
    f"{kept} (in '{workdir}').\n"
    'What may help, in a new --workdir (--init_from or --resume_from goes on '
    'from a checkpoint): a lower config.optim.learning_rate, a longer '
    'config.optim.schedule.warmup, a smaller config.optim.clip, float32 '
    "instead of bfloat16 (config.backbone.dtype='float32')"
  )


class Window:
  """Means of metrics over the steps since the last look."""

  def __init__(self):
    self._sums: dict[str, float] = {}
    self._count = 0

  def add(self, metrics: Mapping[str, float]) -> None:
    """Takes the metrics of one step."""
    for name, value in metrics.items():
      self._sums[name] = self._sums.get(name, 0.0) + value
    self._count += 1

  def means(self) -> dict[str, float]:
    """The means, and starts anew."""
    means = {k: v / max(self._count, 1) for k, v in self._sums.items()}
    self._sums, self._count = {}, 0
    return means

  def get_state(self) -> dict[str, Any]:
    """JSON values."""
    return {'sums': dict(self._sums), 'count': self._count}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes on as the window did that wrote the state."""
    self._sums, self._count = dict(state['sums']), state['count']


def due(step: int, every: int, total: int) -> bool:
  """Whether something is to be done after a step: regularly and at the end.

  Args:
    step: optimizer steps taken.
    every: steps between two times; 0 = never.
    total: steps of the run.
  """
  return bool(every) and (step % every == 0 or step == total)


class Preemption:
  """Notes SIGTERM and SIGINT, so that the loop can save before it ends.

  A second signal of either kind does what it would have done without. With
  several processes SIGTERM may reach one of them alone: JAX then agrees on a
  step at which all of them stop.
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
      except ValueError:  # not the main thread: nobody to be told by
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
    """Whether to stop after this step, in all processes alike."""
    if jax.process_count() > 1:
      if multihost_utils.reached_preemption_sync_point(step):
        self.received = self.received or signal.SIGTERM
        return True
      return False
    return self.received is not None
