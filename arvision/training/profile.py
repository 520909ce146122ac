"""Profiles of train steps, for XProf and TensorBoard."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import jax

from arvision.errors import ConfigError

# Traces of more steps take gigabytes, and viewers cut them off.
MOST = 1000


def parse(text: str) -> tuple[int, int]:
  """Reads '100:105', the first and the last step of a profile.

  Raises:
    ConfigError: not two numbers of steps in order, or too many steps.
  """
  found = re.fullmatch(r'([0-9]{1,9}):([0-9]{1,9})', text)
  first, last = map(int, found.groups()) if found else (0, 0)
  if not 1 <= first <= last:
    raise ConfigError(
      f"--profile='{text}': wanted FIRST:LAST, two steps from 1 on in order, "
      'such as --profile=100:105'
    )
  if last - first >= MOST:
    raise ConfigError(
      f'--profile={text}: {last - first + 1} steps, wanted at most {MOST}'
    )
  return first, last


class Profile:
  """Annotates all train steps, and traces some of them.

  The trace is written to `plugins/profile/` below the folder, where XProf and
  the profile page of TensorBoard look for it.
  """

  def __init__(
    self, steps: tuple[int, int] | None, folder: str | os.PathLike, end: int
  ):
    """Checks the steps; nothing is written.

    Args:
      steps: first and last step of the trace; None for no trace.
      folder: folder of the TensorBoard files.
      end: last step of this call of `train`.

    Raises:
      ConfigError: the run ends before the trace does.
    """
    if steps and steps[1] > end:
      raise ConfigError(
        f'--profile={steps[0]}:{steps[1]}: training ends after step {end}; '
        'wanted steps before that'
      )
    self._steps, self._folder = steps, os.fspath(folder)
    self._running = False

  def describe(self, step: int) -> str:
    """A line about the trace after `step` steps; '' without one."""
    if not self._steps:
      return ''
    first, last = self._steps
    if step >= last:
      return f'no profile: steps {first} to {last} are already done'
    return f'steps {max(first, step + 1)} to {last} are profiled'

  @contextlib.contextmanager
  def step(self, step: int) -> Iterator[None]:
    """Annotates the dispatch of a step; starts the trace before its first."""
    if self._steps and not self._running:
      first, last = self._steps
      if first <= step <= last:
        jax.profiler.start_trace(self._folder)
        self._running = True
    with jax.profiler.StepTraceAnnotation('train', step_num=step):
      yield

  def after(self, step: int, metrics: Any) -> bool:
    """Ends the trace after its last step, once the devices have finished it.

    Args:
      step: optimizer steps taken.
      metrics: arrays of that step.

    Returns:
      Whether the trace has ended.
    """
    if not self._running or not self._steps or step < self._steps[1]:
      return False
    jax.block_until_ready(metrics)
    self.close()
    return True

  def close(self) -> None:
    """Writes a trace that is not complete, of a run that was stopped."""
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
