"""A look at the pictures of a split, before they are trained on."""

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from arvision.data.split import Split

# Pictures that a thread takes at once: neighbours, since reading one of a
# Parquet file costs a row group.
_BLOCK = 64
# Seconds between two reports, and seconds after the end in which a picture
# that is being read may still come.
_REPORT, _GRACE = 30.0, 2.0


@dataclasses.dataclass(frozen=True)
class Looked:
  """What was seen.

  Attributes:
    seen: number of pictures that were looked at.
    broken: index in the source -> why that picture is broken.
    waits: the picture that was still being read at the end, '' for none.
  """

  seen: int
  broken: Mapping[int, str]
  waits: str = ''


def look(
  split: Split,
  seconds: float,
  part: tuple[int, int] = (0, 1),
  say: Callable[[str], None] = lambda text: None,
) -> Looked:
  """Opens the pictures of a split, in threads.

  Where the time does not suffice for all of them, those that are looked at lie
  all over the split.

  Args:
    split: the split.
    seconds: longest time.
    part: (p, n): looks at the p-th of n parts of the pictures.
    say: told every 30 s how far it is.

  Raises:
    DataError: a picture that can be decoded, but not be used.
  """
  return _Look(split, seconds, part).run(say)


class _Look:
  """The state that the threads of a look share."""

  def __init__(self, split, seconds, part):
    self._split = split
    self._end = time.monotonic() + seconds
    starts = range(0, len(split), _BLOCK)
    order = np.random.default_rng(0).permutation(starts)[part[0] :: part[1]]
    self._blocks = iter(order.tolist())
    self._lock = threading.Lock()
    self._broken: dict[int, str] = {}
    self._faults: list[Exception] = []
    self._seen = 0

  def run(self, say):
    # Lists the files, in one thread.
    self._split.name(int(self._split.numbers[0]))
    count = min(16, 4 * (os.cpu_count() or 1))
    threads = [
      threading.Thread(target=self._work, daemon=True) for _ in range(count)
    ]
    for thread in threads:
      thread.start()
    report = time.monotonic() + _REPORT
    for thread in threads:
      # A read from a dead network share returns never.
      while thread.is_alive() and time.monotonic() < self._end + _GRACE:
        left = self._end + _GRACE - time.monotonic()
        thread.join(max(0.0, min(left, _REPORT / 10)))
        if time.monotonic() > report:
          report += _REPORT
          say(self._so_far())
    with self._lock:
      if self._faults:
        raise self._faults[0]
      waits = self._waits() if any(t.is_alive() for t in threads) else ''
      return Looked(self._seen, dict(self._broken), waits)

  def _work(self):
    while True:
      with self._lock:
        start = next(self._blocks, None)
      if start is None:
        return
      for i in self._split.numbers[start : start + _BLOCK].tolist():
        if time.monotonic() > self._end or self._faults:
          return
        try:
          why = self._split.look(i)
        except Exception as error:  # raised again in `run`
          self._faults.append(error)
          return
        with self._lock:
          self._seen += 1
          if why:
            self._broken[i] = why

  def _so_far(self):
    text = (
      f'looked at {self._seen:,} of {len(self._split):,} pictures, '
      f'{len(self._broken):,} are broken'
    )
    waits = self._waits()
    return f'{text}; now at {waits}' if waits else text

  def _waits(self):
    read = self._split.reads.longest()
    if read is None:
      return ''
    return f'{self._split.name(read[0])}, for {read[1]:.0f} s'
