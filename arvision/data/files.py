"""Files of unknown origin: which there are, what they hold, how to name them."""

import contextlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from typing import BinaryIO


def shown(name: str | os.PathLike) -> str:
  """A file name as one printable line of Unicode.

  Bytes that are not UTF-8 and control characters become escapes (`\\udcff`,
  `\\n`), so that the name can be logged, hashed and written to JSON.
  """
  text = os.fspath(name)
  if text.isprintable():
    return text
  return ''.join(
    c.encode('unicode_escape').decode()
    if unicodedata.category(c) in ('Cc', 'Cs', 'Zl', 'Zp')
    else c
    for c in text
  )


@contextlib.contextmanager
def open_regular(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """Opens a regular file, or a link to one, to be read.

  Raises:
    OSError: it cannot be opened, or is a folder, FIFO, socket or device.
  """
  _check_kind(os.stat(path))
  # It may be another file by now, and opening a FIFO must not wait.
  flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
  with open(os.open(path, flags), 'rb') as file:
    _check_kind(os.fstat(file.fileno()))
    yield file


def read(path: str | os.PathLike, limit: int) -> bytes:
  """The bytes of a regular file.

  Raises:
    OSError: it cannot be read, is no regular file, or holds more than `limit`.
  """
  with open_regular(path) as file:
    size = os.fstat(file.fileno()).st_size
    if size > limit:
      raise OSError(f'{size} bytes, wanted at most {limit}')
    return file.read(size)


def _check_kind(status):
  if not stat.S_ISREG(status.st_mode):
    kind = {
      stat.S_IFDIR: 'a folder',
      stat.S_IFIFO: 'a FIFO',
      stat.S_IFSOCK: 'a socket',
    }.get(stat.S_IFMT(status.st_mode), 'a device')
    raise OSError(f'{kind}, wanted a regular file')


def search(
  root: str | os.PathLike, once: Callable[[str], bool]
) -> tuple[list[str], dict[str, str]]:
  """The files below a folder; names that start with a dot are passed over.

  Links are followed, but every folder is searched once: under its own name, or
  under the first link to it. A link to a folder that holds `root` is passed
  over, too.

  Args:
    root: the folder.
    once: the files (by their path) that are found once likewise, where others
      are found under every name.

  Returns:
    paths relative to `root`, with '/', in order; and links that were passed
    over -> where they lead.

  Raises:
    OSError: a folder that cannot be searched.
  """
  root = os.path.realpath(root)
  searched = set()
  parent = root
  while parent != os.path.dirname(parent):
    parent = os.path.dirname(parent)
    searched.add(parent)
  files: list[str] = []
  file_links: list[str] = []
  passed: dict[str, str] = {}
  folders = ['']
  while folders:
    # Folders come before links to folders.
    folder_links: list[str] = []
    for start in folders:
      real = os.path.realpath(os.path.join(root, start))
      if real in searched:
        passed[start] = real
      else:
        _walk(real, start, searched, files, file_links, folder_links)
    folders = sorted(folder_links)
  if any(map(once, file_links)):
    found = {_identity(os.path.join(root, p)) for p in files if once(p)}
  for path in sorted(file_links):
    if once(path):
      identity = _identity(os.path.join(root, path))
      if identity in found:
        passed[path] = os.path.realpath(os.path.join(root, path))
        continue
      found.add(identity)
    files.append(path)
  return sorted(files), passed


def is_circle(root: str | os.PathLike, link: str, target: str) -> bool:
  """Whether a link below `root` leads to a folder that holds the link."""
  above = os.path.realpath(os.path.join(root, os.path.dirname(link)))
  return os.path.commonpath([above, target]) == target


def _walk(real, name, searched, files, file_links, folder_links):
  """Adds what is below a folder, without following links."""
  waiting = [(real, name)]
  while waiting:
    real, name = waiting.pop()
    if real in searched:
      continue
    searched.add(real)
    with os.scandir(real) as entries:
      for entry in entries:
        if entry.name.startswith('.'):
          continue
        below = f'{name}/{entry.name}' if name else entry.name
        if entry.is_symlink():
          links = folder_links if entry.is_dir() else file_links
          links.append(below)
        elif entry.is_dir():
          waiting.append((os.path.join(real, entry.name), below))
        else:
          files.append(below)


def _identity(path):
  try:
    status = os.stat(path)
  except OSError:
    return path  # a link to nothing, which is reported when it is opened
  return status.st_dev, status.st_ino
