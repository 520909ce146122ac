"""Writes folders atomically: fills a temporary folder, then renames it.

Temporary folders of killed processes are removed.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

# A file in the temporary folder, locked by its writer. The lock ends with the
# process.
_MARK = '.partial'


@contextlib.contextmanager
def beside(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder beside `target`, removed unless `finish` renames it.

  Args:
    target: path of the final folder.

  Yields:
    path of the temporary folder.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  _tidy(target.parent)
  folder = target.with_name(f'.{target.name}.partial-{os.getpid()}')
  folder.mkdir()
  try:
    with (folder / _MARK).open('x') as mark:
      fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
      yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def finish(folder: pathlib.Path, target: pathlib.Path) -> None:
  """Renames a folder of `beside` to `target`, which may be an empty folder."""
  (folder / _MARK).unlink()
  folder.rename(target)


def _tidy(parent):
  """Removes temporary folders without a writer."""
  for folder in parent.glob('.*.partial-*'):
    if not re.fullmatch(r'\..+\.partial-[0-9]+', folder.name):
      continue
    try:
      with (folder / _MARK).open() as mark:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # locked by its writer, or not made by `beside`
      continue
