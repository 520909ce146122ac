"""Output files of commands: checked before the work, written atomically."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterator

from arvision import atomic
from arvision.errors import ConfigError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_folder(
  path: str | os.PathLike, flag: str = '--workdir', size: float = 0
) -> None:
  """Checks that a folder can be created or written to; creates nothing.

  Args:
    path: path of the folder, which may exist.
    flag: flag with the path, for errors.
    size: bytes that will be written, as far as they are known.

  Raises:
    ConfigError: it is a file or read-only, or the disk is too full.
  """
  with writing(path, flag):
    _check(_plain(path), size)


def check_file(
  path: str | os.PathLike, flag: str = '--workdir', size: float = 0
) -> None:
  """Checks that a file can be created or replaced, see `check_folder`."""
  with writing(path, flag):
    file = _plain(path)
    if file.exists() and not file.is_file():
      raise OSError(errno.EISDIR, 'wanted a file')
    _check(file.parent, size)


def _plain(path):
  if '\0' in os.fspath(path):
    raise OSError(errno.EINVAL, 'its name holds a NUL byte')
  return pathlib.Path(path)


def _check(folder, size):
  while not folder.exists():
    folder = folder.parent
  if not folder.is_dir():
    raise OSError(errno.ENOTDIR, f"'{folder}' is no folder")
  # Permissions alone do not show read-only or full disks.
  with tempfile.TemporaryFile(dir=folder) as file:
    file.write(bytes(4096))
    file.flush()
  left = shutil.disk_usage(folder).free
  if left < size:
    text = f'{left / 1e9:.2f} GB are free, {size / 1e9:.2f} GB wanted'
    raise OSError(errno.ENOSPC, text)


@contextlib.contextmanager
def writing(path: str | os.PathLike, flag: str = '--workdir') -> Iterator[None]:
  """Turns errors of writing into a ConfigError.

  Args:
    path: file or folder that is written inside.
    flag: flag with the path.

  Raises:
    ConfigError: an OSError occurred; with its message.
  """
  try:
    yield
  except OSError as error:
    free = 'free space there, or ' if error.errno in _FULL else ''
    raise ConfigError(
      f"{flag}: '{path}' cannot be written: {error.strerror or error}; {free}"
      'name another place'
    ) from error


@contextlib.contextmanager
def whole_folder(
  path: pathlib.Path, flag: str = '--workdir'
) -> Iterator[pathlib.Path]:
  """A temporary folder that replaces another one when the block ends.

  Args:
    path: path of the folder to replace.
    flag: flag with the path.

  Yields:
    the temporary folder. After an error it is removed, and `path` stays.

  Raises:
    ConfigError: the folder cannot be written.
  """
  with contextlib.ExitStack() as stack:
    with writing(path, flag):
      folder = stack.enter_context(atomic.beside(path))
    yield folder
    with writing(path, flag):
      shutil.rmtree(path, ignore_errors=True)
      atomic.finish(folder, path)


@contextlib.contextmanager
def whole_file(
  path: pathlib.Path, flag: str = '--workdir'
) -> Iterator[pathlib.Path]:
  """A temporary file that replaces another one when the block ends.

  Args:
    path: path of the file to replace.
    flag: flag with the path.

  Yields:
    the temporary file. After an error it is removed, and `path` stays.

  Raises:
    ConfigError: the file cannot be written.
  """
  with writing(path, flag), atomic.whole(path) as new:
    yield new


def write_text(path: pathlib.Path, text: str, flag: str = '--workdir') -> None:
  """Writes a text file atomically.

  Raises:
    ConfigError: the file cannot be written.
  """
  with writing(path, flag), atomic.whole(path) as new:
    new.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def filling(path: str | os.PathLike) -> Iterator[None]:
  """Turns errors of a full disk into one ConfigError, in all threads.

  Libraries that write in threads would print a traceback per thread.

  Args:
    path: folder that is written inside.

  Raises:
    ConfigError: the disk is full.
  """
  before = threading.excepthook
  full: list[BaseException | None] = []

  def hook(found):
    if _full(found.exc_value):
      full.append(found.exc_value)
    else:
      before(found)

  threading.excepthook = hook
  try:
    yield
  except Exception as error:
    # The death of a thread may show here as another error.
    if not (full or _full(error)):
      raise
    raise ConfigError(
      f"--workdir: '{path}': no space is left; free space there and run the "
      'same command'
    ) from error
  finally:
    threading.excepthook = before


def _full(error: BaseException | None) -> bool:
  """Whether an error, or one of its causes, is that of a full disk."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _FULL:
      return True
    if os.strerror(errno.ENOSPC) in str(error):
      return True
    error = error.__cause__ or error.__context__
  return False
