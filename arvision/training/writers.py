"""Logs of a run: console, log.jsonl, TensorBoard and pictures."""

import contextlib
import errno
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
import tqdm
from clu import parameter_overview
from ml_collections import ConfigDict

from arvision import atomic
from arvision.build import build, check
from arvision.errors import ConfigError
from arvision.training import pictures
from arvision.training.environment import ENVIRONMENT
from arvision.training.workdir import LOG, PROTOCOLS


def read_log(path: pathlib.Path) -> tuple[list[dict[str, float]], int]:
  """Reads a log file.

  A last line that is cut off is left out and does not count as damaged.

  Returns:
    the lines, oldest first, each as name -> number with 'step' among the names;
    and the number of damaged lines. [] and 0 without a file.
  """
  lines = [numbers for _, numbers in _lines(path)]
  if lines and lines[-1] is None:
    del lines[-1]
  intact = [numbers for numbers in lines if numbers is not None]
  return intact, len(lines) - len(intact)


def cut_log(path: pathlib.Path, step: int) -> None:
  """Removes the lines of a log file after a step, and damaged lines."""
  if not path.exists():
    return
  kept = [
    text + b'\n'
    for text, numbers in _lines(path)
    if numbers is not None and numbers['step'] <= step
  ]
  with atomic.whole(path) as new:
    new.write_bytes(b''.join(kept))


def _lines(path):
  """Yields (text, name -> number) of every line; (text, None) if damaged."""
  if not path.is_file():
    return
  for text in path.read_bytes().splitlines():
    try:
      line = json.loads(text)
      numbers = {k: v for k, v in line.items() if is_number(v)}
      yield text, numbers if math.isfinite(numbers['step']) else None
    except (ValueError, KeyError, AttributeError, RecursionError):
      yield text, None


def is_number(value: Any) -> bool:
  """Whether a JSON value is a number in the range of a float."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return False
  with contextlib.suppress(OverflowError):
    float(value)
    return True
  return False


class Board(Protocol):
  """An open log of a `FurtherWriter`."""

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes metrics: name -> value after a step."""

  def picture(self, name: str, sheet: np.ndarray, step: int) -> None:
    """Writes a picture (height, width, 3) uint8."""

  def close(self, failed: bool) -> None:
    """Ends the log of a run that has ended, or failed."""


class FurtherWriter(Protocol):
  """A part that writes metrics elsewhere too: `config.writers.<name>`."""

  def check(self) -> None:
    """Raises ConfigError where it cannot write."""

  def open(self, folder: pathlib.Path, config: ConfigDict) -> Board:
    """Opens the log of the run in a folder; process 0 does."""


def further_writers(config: ConfigDict) -> list[FurtherWriter]:
  """The parts of `config.writers`, checked.

  Raises:
    ConfigError: a block that is no writer, or one that cannot write.
  """
  blocks = config.get('writers') or {}
  check(blocks, Mapping, 'config.writers')
  found = []
  for name, block in blocks.items():
    check(block, Mapping, f'config.writers.{name}')
    writer = build(block, f'writers.{name}')
    if not hasattr(writer, 'open'):
      raise ConfigError(
        f'config.writers.{name}.type={block["type"]!r} is no writer: it lacks '
        "'open', see training.writers.FurtherWriter"
      )
    writer.check()
    found.append(writer)
  return found


class Writer:
  """Writes to the console, log.jsonl, TensorBoard and PNG files.

  Only process 0 writes. A terminal shows a progress bar as well.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    total: int,
    step: int,
    seen: Callable[[int], int],
  ):
    """Opens the files and removes their entries after `step`.

    Args:
      workdir: folder of the run.
      total: steps of the run.
      step: optimizer steps taken so far.
      seen: step -> examples seen until then.
    """
    self._active = jax.process_index() == 0
    self._boards: list[Board] = []
    self._total = total
    self._seen = seen
    if not self._active:
      return
    self._folder = pathlib.Path(workdir)
    cut_log(self._folder / LOG, step)
    self._log = (self._folder / LOG).open('a')
    # Imported here, since it imports PyTorch where that is installed.
    import tensorboardX

    self._board = tensorboardX.SummaryWriter(
      str(self._folder / 'tensorboard'),
      purge_step=step + 1,
      flush_secs=20,
      max_queue=0,  # a bounded queue blocks for ever once its thread is dead
    )
    self._bar = tqdm.tqdm(
      total=total,
      initial=step,
      unit='step',
      disable=not sys.stderr.isatty(),
      dynamic_ncols=True,
      leave=False,
    )

  def add(self, writers: Iterable[FurtherWriter], config: ConfigDict) -> None:
    """Opens further writers, which get all metrics and pictures too."""
    if self._active:
      for writer in writers:
        self._boards.append(writer.open(self._folder, config))

  def say(self, text: str) -> None:
    """Prints a line on the console."""
    if self._active:
      self._bar.write(text, file=sys.stdout)
      sys.stdout.flush()

  def scalars(self, step: int, values: Mapping[str, float], text: str) -> None:
    """Writes the metrics of a step to all logs.

    Args:
      step: optimizer steps taken.
      values: name -> value.
      text: line for the console.
    """
    if not self._active:
      return
    values = {k: float(v) for k, v in values.items()}
    line = {'step': step, 'examples': self._seen(step), **values}
    self._log.write(json.dumps(line) + '\n')
    self._log.flush()
    self._check_board()
    for name, value in values.items():
      self._board.add_scalar(name, value, step)
    for board in self._boards:
      board.scalars(step, line)
    self.say(f'step {step}/{self._total}  {text}')

  def changed(self, step: int, keys: Mapping[str, tuple[Any, Any]]) -> None:
    """Logs keys of the config whose values change after a step.

    Args:
      step: optimizer steps taken.
      keys: key -> (value before, value now).
    """
    for key, (before, now) in keys.items():
      self.say(f'{key}: {before!r} until now, {now!r} from here on')
    if self._active and keys:
      line = {'step': step, 'examples': self._seen(step), 'changed': keys}
      self._log.write(json.dumps(line) + '\n')
      self._log.flush()

  def progress(self, step: int, text: str) -> None:
    """Updates the progress bar."""
    if self._active and not self._bar.disable:
      self._bar.set_postfix_str(text, refresh=False)
      self._bar.update(step - self._bar.n)

  def picture(
    self, name: str, rows: Mapping[str, np.ndarray], step: int | None = None
  ) -> None:
    """Writes pictures/<name>_<step>.png, and the image to TensorBoard.

    Args:
      name: name of the file.
      rows: see `pictures.sheet`.
      step: optimizer steps taken; None for a name without a step.
    """
    if not self._active:
      return
    sheet = pictures.sheet(rows)
    file = name if step is None else f'{name}_{step:07d}'
    pictures.save(self._folder / 'pictures' / f'{file}.png', sheet)
    self._check_board()
    self._board.add_image(name, sheet, step or 0, dataformats='HWC')
    for board in self._boards:
      board.picture(name, sheet, step or 0)

  def parameters(self, params: Any) -> None:
    """Writes parameters.txt: names, shapes and sizes."""
    if not self._active:
      return
    table = parameter_overview.get_parameter_overview(
      params, include_stats=False
    )
    (self._folder / 'parameters.txt').write_text(table + '\n')

  def environment(self, found: Mapping[str, Any]) -> None:
    """Writes environment.json; the newest start of a run counts."""
    if self._active:
      text = json.dumps(found, indent=2) + '\n'
      with atomic.whole(self._folder / ENVIRONMENT) as new:
        new.write_text(text)

  def protocols(self, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds to protocols.json: name -> facts of the protocols in the log."""
    if not self._active or not found:
      return
    path = self._folder / PROTOCOLS
    before: Any = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
      before = json.loads(path.read_bytes())
    merged = {**(before if isinstance(before, dict) else {}), **found}
    if merged != before:
      with atomic.whole(path) as new:
        new.write_text(json.dumps(merged, indent=2) + '\n')

  def close(self, failed: bool = False) -> None:
    """Closes the progress bar, the files and further writers.

    Args:
      failed: whether an error ended the run.
    """
    if self._active:
      for board in self._boards:
        board.close(failed)
      self._bar.close()
      self._log.close()
      events = self._events
      if events._worker.is_alive():
        self._board.close()
      else:  # nothing empties the queue any more, so do not wait for it
        events._event_queue.cancel_join_thread()
        events._closed = True

  @property
  def _events(self):
    return self._board.file_writer.event_writer

  def _check_board(self):
    # A failed write ends its thread, with a message on stderr only.
    if not self._events._worker.is_alive():
      folder = self._folder / 'tensorboard'
      raise OSError(errno.EIO, 'cannot be written any more', str(folder))


class Rate:
  """Images per second and remaining time, without saves and evaluations."""

  def __init__(self, batch_size: int, total: int):
    self._batch_size = batch_size
    self._total = total
    self._step: int | None = None
    self._start = 0.0

  def restart(self, step: int) -> None:
    """Restarts the measurement at a step."""
    self._step, self._start = step, time.perf_counter()

  def skip(self, seconds: float) -> None:
    """Excludes seconds that were not spent on steps."""
    self._start += seconds

  def __call__(self, step: int) -> tuple[float, float]:
    """(images/s since `restart`, seconds to the end of the run)."""
    done = step - (step if self._step is None else self._step)
    seconds = max(time.perf_counter() - self._start, 1e-9)
    speed = done / seconds
    left = (self._total - step) / speed if speed else float('inf')
    return speed * self._batch_size, left


def clock_text(seconds: float) -> str:
  """'1:02:03' or '2:03'."""
  if not np.isfinite(seconds):
    return '?'
  return tqdm.tqdm.format_interval(int(seconds))
