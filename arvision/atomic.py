"""Atomic writing of files and folders."""

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
def whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A temporary file that is renamed to `path`, or removed after an error.

  Args:
    path: the final file; its folder is created.

  Yields:
    path of the temporary file.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  new = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    yield new
    new.replace(path)
  finally:
    new.unlink(missing_ok=True)


@contextlib.contextmanager
def beside(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder beside `target`, removed unless `finish` renames it.

  Also removes temporary folders that killed processes left there.

  Args:
    target: path of the final folder.

  Yields:
    path of the temporary folder.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  _remove_abandoned(target.parent)
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


def _remove_abandoned(parent):
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
