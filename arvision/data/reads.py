"""What is being read at the moment, for whoever waits for it."""

import contextlib
import threading
import time
from collections.abc import Iterator


class Reads:
  """The examples that the threads of a process are reading.

  A pickled copy, as worker processes get it, starts empty.
  """

  def __init__(self):
    self._now: dict[int, tuple[int, float]] = {}

  def __reduce__(self):
    return Reads, ()

  @contextlib.contextmanager
  def of(self, i: int) -> Iterator[None]:
    """Notes that this thread reads example i."""
    thread = threading.get_ident()
    self._now[thread] = i, time.monotonic()
    try:
      yield
    finally:
      del self._now[thread]

  def longest(self) -> tuple[int, float] | None:
    """The example that is being read for the longest time, and the seconds."""
    # One call, since other threads change the dict.
    reads = list(self._now.values())
    if not reads:
      return None
    i, since = min(reads, key=lambda read: read[1])
    return i, time.monotonic() - since
