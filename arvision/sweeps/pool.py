"""Runs jobs in processes, several at once, and stops them together."""

import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Protocol

from arvision import leader
from arvision.sweeps.runs import Job, Runs, Step

# Seconds between two looks at the processes, between two notes of the time that
# a training took, and for a training to save before it is killed.
_LOOK, _NOTE, _PATIENCE = 0.2, 5.0, 120.0


class Show(Protocol):
  """Shows what jobs do."""

  def output(self, job: Job) -> IO | None:
    """An open file for what the processes of a job print; None: the console."""

  def state(self, job: Job, state: str) -> None:
    """Called when a job changes to 'train', 'eval', 'done', 'failed: ...'."""

  def look(self) -> None:
    """Called several times a second."""


class Process(Protocol):
  """What is used of `subprocess.Popen`."""

  def poll(self) -> int | None: ...
  def terminate(self) -> None: ...
  def kill(self) -> None: ...
  def wait(self, timeout: float | None = None) -> int: ...


Start = Callable[[Sequence[str], Mapping[str, str], IO | None], Process]


def start(
  command: Sequence[str], share: Mapping[str, str], output: IO | None
) -> Process:
  """Starts a process that a Ctrl-C on the console does not reach.

  If it is `arvision`, it gets SIGTERM when this process dies: no training is left
  behind.

  Args:
    command: the command line.
    share: further environment variables.
    output: file of what it prints, None for the console.
  """
  return subprocess.Popen(
    list(command),
    env={**os.environ, **share, **leader.environment()},
    stdin=subprocess.DEVNULL,
    stdout=output,
    stderr=subprocess.STDOUT if output else None,
    start_new_session=True,
  )


class Pool:
  """Jobs in processes; a job starts when those that it needs are trained.

  Attributes:
    failed: name of a job -> why it is not complete.
  """

  def __init__(
    self,
    runs: Runs,
    jobs: Sequence[Job],
    show: Show,
    shares: Sequence[Mapping[str, str]] = ({},),
    start: Start = start,
  ):
    """Prepares the jobs; `run` runs them.

    Args:
      runs: where they run.
      jobs: their names differ.
      show: shows what they do.
      shares: environment variables of every process of several at once.
      start: starts a process.
    """
    self.failed: dict[str, str] = {}
    self._runs, self._show, self._start = runs, show, start
    self._waiting = list(jobs)
    self._free = list(shares)
    self._active: list[_Active] = []
    self._trained: set[str] = set()

  def run(self) -> dict[str, str]:
    """Runs all jobs to their end.

    Returns:
      `failed`.

    Raises:
      KeyboardInterrupt: SIGINT or SIGTERM came. All processes were stopped, and
        trainings saved; another `Pool` of the same jobs goes on from there.
    """
    self._runs.root.mkdir(parents=True, exist_ok=True)
    with _terminable():
      try:
        while self._waiting or self._active:
          self._fill()
          if not self._turn():
            time.sleep(_LOOK)
          self._show.look()
      finally:
        self._stop()
    return self.failed

  def _fill(self):
    """Starts the jobs that can start."""
    for job in [*self._waiting]:
      if lost := [name for name in job.needs if name in self.failed]:
        self._waiting.remove(job)
        self._end(job, f'it needs {lost[0]}')
      elif self._free and self._trained.issuperset(job.needs):
        self._waiting.remove(job)
        self._active.append(_Active(job, self._free.pop(0)))

  def _turn(self):
    """Looks after the active jobs once; whether there is more to do at once."""
    more = False
    for active in [*self._active]:
      if active.process is None:
        more |= self._next(active)
      elif (code := active.process.poll()) is not None:
        self._ended(active, code)
        more = True
      elif active.step.file is None and time.time() - active.noted > _NOTE:
        self._note(active, False)
    return more

  def _next(self, active):
    """Starts the next step of a job, or ends it; False if it runs already."""
    left = self._runs.missing(active.job)
    if not left or left[0].file is not None:
      self._trained.add(active.job.name)
    if not left:
      self._leave(active, '')
      return True
    active.step = left[0]
    if active.tried == active.step:
      self._leave(active, f'{active.step.words[0]} left no {active.step.file}')
      return True
    active.tried = active.step
    self._show.state(active.job, active.step.words[0])
    active.begin(self._runs.seconds(active.job.name))
    active.output = self._show.output(active.job)
    active.process = self._start(
      self._runs.command(active.step.words), active.share, active.output
    )
    return True

  def _ended(self, active, code):
    if active.step.file is None:
      self._note(active, code == 0)
    active.close()
    if code:
      why = f'{active.step.words[0]} ended with code {code}'
      if code in (-signal.SIGTERM, 128 + signal.SIGTERM):
        why = 'it was stopped by SIGTERM'
      self._leave(active, why)

  def _leave(self, active, why):
    self._active.remove(active)
    self._free.append(active.share)
    self._end(active.job, why)

  def _end(self, job, why):
    if why:
      self.failed[job.name] = why
    self._show.state(job, f'failed: {why}' if why else 'done')

  def _note(self, active, done):
    active.noted = time.time()
    seconds = active.before + active.noted - active.started
    self._runs.keep(active.job.name, seconds, done)

  def _stop(self):
    """Stops what still runs; a second Ctrl-C kills it."""
    processes = [a.process for a in self._active if a.process]
    for process in processes:
      process.terminate()
    end = time.time() + _PATIENCE
    try:
      for process in processes:
        process.wait(max(0.0, end - time.time()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
      for process in processes:
        process.kill()
    for active in self._active:
      if active.process and active.step.file is None:
        self._note(active, False)
      active.close()


class _Active:
  """A job that runs, and its present step."""

  def __init__(self, job: Job, share: Mapping[str, str]):
    self.job, self.share = job, share
    self.process: Process | None = None
    self.output: IO | None = None
    self.step = self.tried = Step((), pathlib.Path())
    self.before = self.started = self.noted = 0.0

  def begin(self, seconds: float) -> None:
    """Notes when a step starts, and the time that the training took before."""
    self.before, self.started = seconds, time.time()
    self.noted = self.started

  def close(self) -> None:
    """Closes the output of a process that ended."""
    self.process = None
    if self.output:
      self.output.close()
      self.output = None


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
  """Turns SIGTERM into KeyboardInterrupt, where this is the main thread."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def interrupt(number, frame):
    del number, frame
    raise KeyboardInterrupt

  before = signal.signal(signal.SIGTERM, interrupt)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
