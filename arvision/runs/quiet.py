"""Training with one line of progress, for notebooks."""

import contextlib
import io
import os
import sys
import time
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from arvision.runs.train import train
from arvision.training import loop

_WIDTH = 100  # letters of the line


def train_quietly(
  config: ConfigDict, workdir: str | os.PathLike, **options: Any
) -> loop.Result:
  """Trains a config, and shows the newest line of the log alone.

  The log itself lies in `workdir`, as always. A finished run is not trained
  again.

  Args:
    config: the whole config.
    workdir: folder of the run.
    **options: see `loop.train`.

  Returns:
    see `loop.train`.

  Raises:
    ConfigError, DataError, Diverged: see `loop.train`.
  """
  begin, line = time.perf_counter(), _Line(sys.stdout)
  with contextlib.redirect_stdout(line), _errors_alone():
    result = train(config, workdir, **options)
  seconds = time.perf_counter() - begin
  done = f'{result.step} of {result.total} steps, {seconds:.0f} s'
  line.show(f'{workdir}: {done}. {line.newest}'.rstrip())
  line.end()
  return result


@contextlib.contextmanager
def _errors_alone():
  """Keeps warnings of libraries out of the output."""
  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(level)


class _Line(io.TextIOBase):
  """A stream that shows the newest line about a step in place of the last one.

  Attributes:
    newest: what that line says, without the number of its step.
  """

  def __init__(self, out):
    self._out, self._rest, self.newest = out, '', ''

  def write(self, text: str) -> int:
    *lines, self._rest = (self._rest + text).split('\n')
    for line in lines:
      if line.startswith('step '):
        self.newest = line.partition('  ')[2]
        self.show(line)
    return len(text)

  def show(self, line: str) -> None:
    """Shows a line in place of the one before."""
    self._out.write('\r' + line[:_WIDTH].ljust(_WIDTH))
    self._out.flush()

  def end(self) -> None:
    """Lets what comes next begin on a new line."""
    self._out.write('\n')
