"""The starts, saves and ends of a run, and the share of its time in steps.

`events.jsonl` has a line for each, and for every loss spike; a run that is killed
leaves no line for its end. Times are seconds since 1970.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from arvision.training.workdir import EVENTS

# Ends that are no interruptions.
REGULAR = ('done', 'stopped')


@dataclasses.dataclass(frozen=True)
class Account:
  """How a run has spent its time.

  Attributes:
    wall: seconds since the first start, without pauses after regular ends.
    worked: seconds in steps whose result counts.
    starts: number of starts.
    interruptions: ends of all kinds but regular ones.
  """

  wall: float
  worked: float
  starts: int
  interruptions: int

  @property
  def goodput(self) -> float:
    """The share of the time in steps that count, 0 to 1."""
    return min(1.0, self.worked / self.wall) if self.wall > 0 else 0.0

  def text(self) -> str:
    """A line for the console."""
    found = (
      f'goodput {100 * self.goodput:.1f} %: {self.worked:.0f} of '
      f'{self.wall:.0f} s in steps that count'
    )
    if self.interruptions:
      found += f'; {self.interruptions} interruption'
      found += 's' * (self.interruptions > 1)
    return found


class Events:
  """Writes the events of one start of a run. Process 0 writes."""

  def __init__(self, workdir: str | os.PathLike):
    """Opens nothing; `start` writes the first line."""
    self._path = pathlib.Path(workdir) / EVENTS
    self._active = jax.process_index() == 0
    self._step = 0
    self._started = False

  def start(self, step: int, worked: float | None = None) -> str:
    """Notes a start; returns a line about the one before, or ''.

    Args:
      step: steps taken.
      worked: seconds that the start before was in steps up to this one, where
        no save says it.
    """
    before = read(self._path)
    facts = {} if worked is None else {'before': round(worked, 6)}
    self._write('start', step, **facts)
    self._started = True
    if not before or before[-1].get('why') in REGULAR:
      return ''
    why = before[-1].get('why', 'it was killed, or its machine died')
    return f'the training before this one was interrupted ({why})'

  def saved(
    self, step: int, worked: float, cost: float, interval: float
  ) -> None:
    """Notes a save.

    Args:
      step: steps taken.
      worked: seconds in steps since the start.
      cost: seconds that the save held up the steps.
      interval: seconds until the next one, see `interval`; 0 for none.
    """
    facts = {'worked': worked, 'cost': cost, 'interval': interval}
    facts = {name: round(value, 6) for name, value in facts.items()}
    self._write('save', step, **facts)

  def costs(self) -> list[float]:
    """Seconds that the saves of the run have held up its steps."""
    return [float(e['cost']) for e in read(self._path) if 'cost' in e]

  def spike(self, step: int, facts: Mapping[str, Any]) -> None:
    """Notes a loss spike, see `spikes.Spike`, and its batch."""
    self._write('spike', step, **facts)

  def end(self, step: int, worked: float, why: str) -> Account:
    """Notes the end of a training that has saved its state.

    Args:
      step: steps taken.
      worked: seconds in steps since the start.
      why: one of `REGULAR`, or 'signal'.

    Returns:
      how the run has spent its time.
    """
    self._write('end', step, worked=round(worked, 3), why=why)
    return account(read(self._path), time.time())

  def failed(self, why: str) -> None:
    """Notes an end without a save, after a start."""
    if not self._started:
      return
    with contextlib.suppress(OSError):  # a full disk may be the reason
      self._write('end', self._step, why=why)

  @contextlib.contextmanager
  def noting_failure(self) -> Iterator[None]:
    """Notes an exception as the end."""
    try:
      yield
    except BaseException as error:
      self.failed(type(error).__name__)
      raise

  def _write(self, event, step, **facts):
    self._step = step
    if not self._active:
      return
    line = {'event': event, 'step': step, 'time': round(time.time(), 3)}
    with self._path.open('a') as file:
      file.write(json.dumps({**line, **facts}) + '\n')


def read(path: pathlib.Path) -> list[Mapping[str, Any]]:
  """The events of a run; damaged lines are left out. [] without a file."""
  found: list[Mapping[str, Any]] = []
  with contextlib.suppress(FileNotFoundError):
    for text in path.read_bytes().splitlines():
      with contextlib.suppress(ValueError, RecursionError, OverflowError):
        line = json.loads(text)
        if isinstance(line, dict) and _whole(line):
          found.append(line)
  return found


def _whole(line):
  numbers = [line.get(name) for name in ('step', 'time')]
  numbers += [line.get(name, 0) for name in ('worked', 'cost', 'before')]
  return line.get('event') in ('start', 'save', 'spike', 'end') and all(
    isinstance(x, (int, float)) and math.isfinite(x) for x in numbers
  )


def account(events: Sequence[Mapping[str, Any]], now: float) -> Account:
  """How a run has spent its time.

  The work of a start counts up to the save from which the next one went on.

  Args:
    events: its events in order, see `read`.
    now: the time, for a run that has not ended.
  """
  lives: list[list[Mapping[str, Any]]] = []
  for event in events:
    if event['event'] == 'start':
      lives.append([])
    if lives:
      lives[-1].append(event)
  wall = worked = 0.0
  interruptions = 0
  for i, life in enumerate(lives):
    last, later = life[-1], lives[i + 1][0] if i + 1 < len(lives) else None
    ended = last['event'] == 'end'
    regular = ended and last.get('why') in REGULAR
    interruptions += not regular and (ended or later is not None)
    until = last['time'] if ended else now
    if later is not None and not regular:
      until = later['time']
    wall += max(0.0, until - life[0]['time'])
    counted = [e for e in life if later is None or e['step'] == later['step']]
    spans = [e.get('worked', 0.0) for e in counted]
    worked += max(spans, default=(later or {}).get('before', 0.0))
  return Account(wall, worked, len(lives), interruptions)
