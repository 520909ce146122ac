"""Folders that appear whole: filled under a temporary name, then renamed.

What a killed process left under such a name is removed.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

# A file in a folder that is being filled; who fills it has it locked. The lock
# goes with the process, however that ends.
_MARK = '.partial'


@contextlib.contextmanager
def beside(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """A new folder beside `target`, to be filled and then renamed.

  Folders beside `target` that processes left which were killed are removed.

  Args:
    target: of the folder to be.

  Yields:
    the new folder. What of it is not renamed by the end is removed.
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
  """Gives a folder of `beside` its name; an empty folder may be there."""
  (folder / _MARK).unlink()
  folder.rename(target)


def _tidy(parent):
  """Removes the folders of `beside` that nobody fills any more."""
  for folder in parent.glob('.*.partial-*'):
    if not re.fullmatch(r'\..+\.partial-[0-9]+', folder.name):
      continue
    try:
      with (folder / _MARK).open() as mark:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # somebody fills it, or it is not of ours
      continue
