"""Starts a training again when it dies, until it is done.

The training is a process of its own. With several hosts every host supervises
its own process: a dead one ends the others, and all of them start again.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from arvision import leader
from arvision.parallel import host
from arvision.training import workdir as workdirs
from arvision.training.watchdog import HEARTBEAT

# Exit codes of a training that would end in the same way again: a config, data or
# files that cannot be used.
_HOPELESS = 2
# Seconds: between two looks, of the longest pause before a start, without a sign
# of life until a process counts as stopped, and for it to go on by itself.
_LOOK, _LONGEST, _PATIENCE, _GRACE = 0.2, 60.0, 60.0, 20.0


class Supervisor:
  """Runs a command again and again.

  Attributes:
    starts: number of starts so far.
  """

  def __init__(
    self,
    command: Sequence[str],
    workdir: str | os.PathLike,
    restarts: int,
    patience: float = _PATIENCE,
    first_pause: float = 1.0,
  ):
    """Starts nothing; `run` does.

    Args:
      command: the command line.
      workdir: folder of the run.
      restarts: most starts in a row that add no checkpoint.
      patience: seconds without a sign of life until a training that has taken
        steps is killed.
      first_pause: seconds before the first start in a row; four times as many
        before each later one.
    """
    self.starts = 0
    self._command, self._workdir = list(command), pathlib.Path(workdir)
    self._restarts, self._patience = restarts, patience
    self._first_pause = first_pause
    self._process: subprocess.Popen | None = None
    self._signal: int | None = None

  def run(self) -> int:
    """Runs the command until it ends by itself; returns its exit code.

    A signal to this process goes on to the command, which saves and ends.
    """
    in_vain = 0
    with self._signals(), tempfile.TemporaryDirectory() as folder:
      heartbeat = pathlib.Path(folder) / 'heartbeat'
      while True:
        before = self._newest()
        code = self._start(heartbeat)
        if code in (0, _HOPELESS) or self._signal is not None:
          return code
        in_vain = 0 if self._newest() > before else in_vain + 1
        if in_vain > self._restarts:
          _say(
            f'{_ended(code)}; {in_vain} starts in a row added no checkpoint '
            f'(--max_restarts={self._restarts}), so it is not started again'
          )
          return code
        pause = min(_LONGEST, self._first_pause * 4**in_vain)
        _say(f'{_ended(code)}; starting again in {pause:.2g} s')
        end = time.monotonic() + pause
        while time.monotonic() < end and self._signal is None:
          time.sleep(min(_LOOK, pause))
        if self._signal is not None:
          return 128 + self._signal

  def _newest(self):
    return max(workdirs.saved_steps(self._workdir), default=-1)

  def _start(self, heartbeat):
    """Runs the command once; returns its exit code, or 128 + its signal."""
    self.starts += 1
    heartbeat.unlink(missing_ok=True)
    more = {**leader.environment(), HEARTBEAT: str(heartbeat)}
    process = self._process = subprocess.Popen(
      self._command, env={**os.environ, **more}, start_new_session=True
    )
    while (code := process.poll()) is None:
      time.sleep(_LOOK)
      if self._silent(heartbeat, self._patience):
        self._wake(process, heartbeat)
    return code if code >= 0 else 128 - code

  def _silent(self, heartbeat, seconds):
    with contextlib.suppress(FileNotFoundError):
      return time.time() - heartbeat.stat().st_mtime > seconds
    return False  # it has not come to its steps

  def _wake(self, process, heartbeat):
    """Continues a stopped process, whose watchdog may end it; else kills it."""
    _say(f'no sign of life for {self._patience:.0f} s')
    process.send_signal(signal.SIGCONT)
    try:
      process.wait(min(_GRACE, self._patience))
    except subprocess.TimeoutExpired:
      if self._silent(heartbeat, _LOOK + min(_GRACE, self._patience)):
        process.kill()

  @contextlib.contextmanager
  def _signals(self) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {n: signal.signal(n, self._pass_on) for n in numbers}
    try:
      yield
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def _pass_on(self, number: int, frame: Any) -> None:
    del frame
    self._signal = number
    if self._process is not None and self._process.poll() is None:
      self._process.send_signal(number)


def _ended(code):
  if code > 128:
    name = signal.Signals(code - 128).name
    return f'the training was ended by {name}'
  return f'the training ended with code {code}'


def _say(text):
  print(f'supervisor: {text}', file=sys.stderr, flush=True)


def again(argv: Sequence[str], workdir: str, restarts: int) -> int:
  """Supervises `arvision train` with these flags; returns its exit code."""
  command = [sys.executable, '-m', 'arvision', 'train', *argv]
  # Other hosts need time to notice that this one has died.
  pause = 1.0 if host.announced() else 0.25
  return Supervisor(command, workdir, restarts, first_pause=pause).run()
