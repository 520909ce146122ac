"""Error message and exit code of an exception."""

import os
import pathlib
import traceback

from arvision.errors import ConfigError, DataError
from arvision.ranges import shown
from arvision.training.corruption import Corrupted
from arvision.training.divergence import Diverged


def explain(error: BaseException, argv: list[str]) -> tuple[str, int]:
  """The text after 'arvision: error: ', and the exit code.

  Args:
    error: the exception that ended the command.
    argv: the command line, whose workdir gets the traceback of an internal
      error; [] if the traceback was printed.
  """
  text = ' '.join(str(error).split())
  if isinstance(error, (ConfigError, DataError)):
    return str(error), 2
  if isinstance(error, (Diverged, Corrupted)):
    return str(error), 1
  if isinstance(error, KeyboardInterrupt):
    return 'interrupted', 130
  if isinstance(error, OSError) and error.strerror:
    paths = [n for n in (error.filename, error.filename2) if n is not None]
    names = ' -> '.join(shown(str(path)) for path in paths)
    return f'{names}: {error.strerror}' if names else error.strerror, 2
  if isinstance(error, UnicodeError):
    return f'text that is not UTF-8: {text}', 2
  if isinstance(error, RecursionError):
    return 'blocks or brackets are nested too deep', 2
  if isinstance(error, MemoryError):
    return f'out of memory: {text or "an array did not fit"}', 1
  if 'RESOURCE_EXHAUSTED' in text:
    return (
      'the device is out of memory; make --batch_size or '
      'config.data.batch_size smaller, or config.optim.accumulate larger: '
      f'{text[:200]}'
    ), 1
  return f'{type(error).__name__}: {text}{_kept(error, argv)}', 1


def _kept(error, argv):
  """Appends the traceback to error.txt of the workdir; returns a note."""
  if not argv:
    return ''
  for word in argv:
    flag, _, folder = word.partition('=')
    file = pathlib.Path(folder) / 'error.txt'
    if flag == '--workdir' and (file.parent / 'config.json').is_file():
      try:
        with file.open('a', encoding='utf-8') as out:
          out.writelines(traceback.format_exception(error))
      except OSError:
        break
      return f' (the traceback is in {os.fspath(file)})'
  return ' (--debug shows the traceback)'
