"""Shows what the runs of a sweep do: one line of status for every run."""

import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from typing import IO

from arvision.sweeps.runs import Job, Runs

# Bytes of the end of a log in which its last line is looked for.
_TAIL = 4096
# Seconds between two looks at the logs, on a terminal and elsewhere.
_ON_TERMINAL, _ELSEWHERE = 0.5, 60.0


class Plain:
  """Prints the commands; their output goes to the console too."""

  def __init__(self, runs: Runs):
    """Shows the jobs of some runs."""
    self._runs = runs

  def output(self, job: Job) -> None:
    """None: the console."""
    step = self._runs.missing(job)[0]
    print('\n== arvision', *step.words, flush=True)

  def state(self, job: Job, state: str) -> None:
    """The commands say it."""

  def look(self) -> None:
    """The commands say it."""


class Status:
  """A line of status per run; the output of its commands goes to a log.

  On a terminal the lines of the active runs stay at the bottom and follow their
  logs. Elsewhere a line is printed when a run changes, and every minute.

  Attributes:
    folder: folder of the logs.
  """

  def __init__(self, jobs: Sequence[Job], folder: pathlib.Path, out: IO):
    """Shows jobs on the file `out`; the folder of the logs is there."""
    self.folder = folder
    self._states = dict.fromkeys((job.name for job in jobs), 'waits')
    self._width = max(map(len, self._states), default=0)
    self._out, self._terminal = out, out.isatty()
    self._drawn, self._looked = 0, time.time()

  def log(self, name: str) -> pathlib.Path:
    """The log of the commands of a run."""
    return self.folder / f'{name}.log'

  def output(self, job: Job) -> IO:
    """The log of a job, opened to append to it."""
    return self.log(job.name).open('ab')

  def state(self, job: Job, state: str) -> None:
    """Prints a line if a job ended; else changes its line."""
    self._states[job.name] = state
    over = state.partition(':')[0] in ('done', 'failed')
    if over or not self._terminal:
      self._clear()
      self._say(self._line(job.name))
    self._looked = 0.0 if self._terminal else self._looked

  def look(self) -> None:
    """Prints what the active runs do, if it is time for it."""
    period = _ON_TERMINAL if self._terminal else _ELSEWHERE
    if time.time() - self._looked < period:
      return
    self._looked = time.time()
    self._clear()
    lines = [self._line(name) for name in self._active()]
    if self._terminal:
      counts = [*self._states.values()]
      done, waits = counts.count('done'), counts.count('waits')
      lines.append(f'{done} of {len(counts)} done, {waits} wait')
      self._drawn = len(lines)
    for line in lines:
      self._say(line)

  def close(self) -> None:
    """Removes the lines of active runs."""
    self._clear()

  def _active(self):
    return [
      name
      for name, state in self._states.items()
      if state.partition(':')[0] not in ('waits', 'done', 'failed')
    ]

  def _line(self, name):
    state = self._states[name]
    text = f'{name:<{self._width}}  {state:<6}'
    if state not in ('waits', 'done'):
      text += f'  {last_line(self.log(name))}'
    return text.rstrip()

  def _clear(self):
    if self._drawn:
      self._out.write(f'\x1b[{self._drawn}A\x1b[J')
      self._drawn = 0

  def _say(self, line):
    if self._terminal:
      line = line[: shutil.get_terminal_size().columns - 1]
    self._out.write(f'{line}\n')
    self._out.flush()


def last_line(path: pathlib.Path) -> str:
  """The last line of a log that says something; '' without one."""
  try:
    with path.open('rb') as file:
      file.seek(max(0, path.stat().st_size - _TAIL))
      text = file.read().decode('utf-8', 'replace')
  except OSError:
    return ''
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  lines = [line for line in lines if line.isprintable()]
  return lines[-1] if lines else ''


def console(jobs: Sequence[Job], folder: pathlib.Path) -> Status:
  """The status of jobs on the console."""
  return Status(jobs, folder, sys.stdout)
