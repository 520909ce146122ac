"""Where commands write: looked at before the work, written whole or not at all."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterator

from arvision import atomic
from arvision.data import partial
from arvision.errors import ConfigError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_folder(
  path: str | os.PathLike, flag: str = '--workdir', size: float = 0
) -> None:
  """Refuses a folder that cannot be made or written to; makes nothing.

  Args:
    path: of the folder, which may exist.
    flag: what names it.
    size: bytes that will be written, as far as they are known.

  Raises:
    ConfigError: it is a file, or read-only, or the disk has too little left.
  """
  with writing(path, flag):
    _check(_plain(path), size)


def check_file(
  path: str | os.PathLike, flag: str = '--workdir', size: float = 0
) -> None:
  """Refuses a file that cannot be made or replaced, see `check_folder`."""
  with writing(path, flag):
    file = _plain(path)
    if file.exists() and not file.is_file():
      raise OSError(errno.EISDIR, 'it is no file, and a file is wanted')
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
  # Permissions alone tell neither of read-only disks nor of full ones.
  with tempfile.TemporaryFile(dir=folder) as file:
    file.write(bytes(4096))
    file.flush()
  left = shutil.disk_usage(folder).free
  if left < size:
    text = f'{size / 1e9:.2f} GB are wanted, {left / 1e9:.2f} GB are free there'
    raise OSError(errno.ENOSPC, text)


@contextlib.contextmanager
def writing(path: str | os.PathLike, flag: str = '--workdir') -> Iterator[None]:
  """Says in a line that something could not be written.

  Args:
    path: of what is written inside.
    flag: what names it.

  Raises:
    ConfigError: the system refused; with its words.
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
  """A folder to fill, that takes the place of another once it is whole.

  Args:
    path: of the folder. What it held is replaced at the end.
    flag: what names it.

  Yields:
    the folder to write to. However the block ends, it is gone then.

  Raises:
    ConfigError: the system refused to write.
  """
  with contextlib.ExitStack() as stack:
    with writing(path, flag):
      folder = stack.enter_context(partial.beside(path))
    yield folder
    with writing(path, flag):
      shutil.rmtree(path, ignore_errors=True)
      partial.finish(folder, path)


def write_text(path: pathlib.Path, text: str, flag: str = '--workdir') -> None:
  """Writes a file, whole or not at all.

  Raises:
    ConfigError: the system refused to write.
  """
  with writing(path, flag), atomic.whole(path) as new:
    new.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def filling(path: str | os.PathLike) -> Iterator[None]:
  """Says in one line that a disk became full, whoever found it.

  Libraries that write in threads find it many times, and say so each time.

  Args:
    path: of the folder that is filled inside.

  Raises:
    ConfigError: the disk is full.
  """
  before = threading.excepthook
  told: list[BaseException | None] = []

  def heard(found):
    if _full(found.exc_value):
      told.append(found.exc_value)
    else:
      before(found)

  threading.excepthook = heard
  try:
    yield
  except Exception as error:
    # A thread that died of it may be missed in another way.
    if not (told or _full(error)):
      raise
    raise ConfigError(
      f"--workdir: '{path}': no space is left; free space there and type the "
      'same command'
    ) from error
  finally:
    threading.excepthook = before


def _full(error: BaseException | None) -> bool:
  """Whether an error, or one that it came of, says that a disk is full."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _FULL:
      return True
    if os.strerror(errno.ENOSPC) in str(error):
      return True
    error = error.__cause__ or error.__context__
  return False
