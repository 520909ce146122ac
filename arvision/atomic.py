"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A file that becomes `path` when the block ends, and is gone if it raises.

  Args:
    path: of the file; its folder is made.

  Yields:
    the path to write to, beside it.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  new = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    yield new
    new.replace(path)
  finally:
    new.unlink(missing_ok=True)
