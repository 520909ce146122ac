"""Ends a training that hangs, and says where."""

import faulthandler
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable

# File that a living process touches, for the one that supervises it.
HEARTBEAT = 'ARVISION_HEARTBEAT'
# In a notebook sys.stderr is no file; the one of the process is.
_STDERR = sys.__stderr__ or sys.stderr
# Seconds after which Python's own watchdog ends a process in which no thread
# can run, and most seconds between two looks.
_GRACE, _LOOK = 30.0, 1.0


class Watchdog:
  """Ends the process when what it waits for takes too long.

  The stacks of all threads go to stderr, and the exit code is 1. It looks at
  steps and batches only: compilation, evaluation and saves may take any time.
  """

  def __init__(
    self,
    seconds: float,
    ended: Callable[[str], None] = lambda why: None,
    read: Callable[[], str] = lambda: '',
  ):
    """Prepares it; a `with` block turns it on.

    Args:
      seconds: longest time to wait; 0: for ever.
      ended: called with what was waited for before the process ends.
      read: what of the data is being read, see `waits_for_data`.
    """
    self._seconds, self._ended, self._read = seconds, ended, read
    self._wait: tuple[str, float, bool] | None = None
    self._over = threading.Event()
    self._beat = pathlib.Path(os.environ.get(HEARTBEAT) or os.devnull)
    self._thread = threading.Thread(target=self._watch, daemon=True)

  def __enter__(self) -> 'Watchdog':
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self._over.set()
    self._thread.join()
    faulthandler.cancel_dump_traceback_later()

  def waits(self, text: str) -> None:
    """Starts to wait for something, and ends the wait before."""
    self._wait = text, time.monotonic(), False

  def waits_for_data(self, text: str) -> None:
    """The same where data is waited for, whose source is named then."""
    self._wait = text, time.monotonic(), True

  def rests(self) -> None:
    """Ends the wait; what comes next may take any time."""
    self._wait = None

  def _watch(self):
    armed = False
    look = min(_LOOK, self._seconds / 4) if self._seconds else _LOOK
    while not self._over.wait(look):
      if self._beat != pathlib.Path(os.devnull):
        self._beat.touch()
      if not self._seconds:
        continue
      wait = self._wait
      if wait is None:
        if armed:
          faulthandler.cancel_dump_traceback_later()
        armed = False
        continue
      text, since, reads = wait
      waited = time.monotonic() - since
      if waited > self._seconds:
        self._end(self._named(text) if reads else text, waited)
      faulthandler.dump_traceback_later(
        self._seconds - waited + _GRACE, exit=True, file=_STDERR
      )
      armed = True

  def _named(self, text):
    found = self._read()
    return f'{text} ({found})' if found else text

  def _end(self, text, waited):
    print(
      f'\narvision: error: {text} has taken {waited:.0f} s so far, more than '
      f'config.watchdog.seconds={self._seconds:g}; the stacks of all threads:',
      file=sys.stderr,
      flush=True,
    )
    faulthandler.dump_traceback(file=_STDERR)
    self._ended(text)
    sys.stderr.flush()
    os._exit(1)
