"""Atomic writing of files."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


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
