"""Searches, opens and names files of unknown origin."""

import contextlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from typing import BinaryIO


def shown(name: str | os.PathLike) -> str:
  """A file name as one printable line, for logs, hashes and JSON.

  Bytes that are not UTF-8 and control characters are escaped (`\\udcff`,
  `\\n`).
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
  """Opens a regular file, or a link to one, for reading.

  Raises:
    OSError: it cannot be opened, or is a folder, FIFO, socket or device.
  """
  _check_kind(os.stat(path))
  # The file may have been replaced, and opening a FIFO must not block.
  flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
  with open(os.open(path, flags), 'rb') as file:
    _check_kind(os.fstat(file.fileno()))
    yield file


def read(path: str | os.PathLike, limit: int) -> bytes:
  """The bytes of a regular file.

  Raises:
    OSError: it cannot be read, is not a regular file, or is larger than
      `limit`.
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
  """Lists the files below a folder, without names that start with a dot.

  Follows links, but visits every folder once: under its own name, or under the
  first link to it. Skips links to folders that contain `root`.

  Args:
    root: the folder.
    once: predicate of the paths that are listed once too, however many links
      lead to the file. An empty folder with such a name is listed like a file,
      so that whoever opens it says what it is.

  Returns:
    sorted paths relative to `root`, with '/'; and skipped link -> target.

  Raises:
    OSError: a folder that cannot be read.
  """
  root = os.path.realpath(root)
  searched = set()
  parent = root
  while parent != os.path.dirname(parent):
    parent = os.path.dirname(parent)
    searched.add(parent)
  files: list[str] = []
  file_links: list[str] = []
  skipped: dict[str, str] = {}
  folders = ['']
  while folders:
    # Real folders come before links to folders.
    folder_links: list[str] = []
    for start in folders:
      real = os.path.realpath(os.path.join(root, start))
      if real in searched:
        skipped[start] = real
      else:
        _walk(real, start, searched, once, files, file_links, folder_links)
    folders = sorted(folder_links)
  if any(map(once, file_links)):
    found = {_identity(os.path.join(root, p)) for p in files if once(p)}
  for path in sorted(file_links):
    if once(path):
      identity = _identity(os.path.join(root, path))
      if identity in found:
        skipped[path] = os.path.realpath(os.path.join(root, path))
        continue
      found.add(identity)
    files.append(path)
  return sorted(files), skipped


def is_circle(root: str | os.PathLike, link: str, target: str) -> bool:
  """Whether a link below `root` leads to a folder that contains the link."""
  above = os.path.realpath(os.path.join(root, os.path.dirname(link)))
  return os.path.commonpath([above, target]) == target


def _walk(real, name, searched, once, files, file_links, folder_links):
  """Adds the files and links below a folder, without following links."""
  waiting = [(real, name)]
  while waiting:
    real, name = waiting.pop()
    if real in searched:
      continue
    searched.add(real)
    with os.scandir(real) as entries:
      found = list(entries)
      if not found and name and once(name):
        files.append(name)
      for entry in found:
        if entry.name.startswith('.'):
          continue
        below = f'{name}/{entry.name}' if name else entry.name
        if entry.is_symlink():
          links = folder_links if _is_folder(entry) else file_links
          links.append(below)
        elif entry.is_dir():
          waiting.append((os.path.join(real, entry.name), below))
        else:
          files.append(below)


def _is_folder(entry):
  try:
    return entry.is_dir()
  except OSError:  # a link to itself, which is reported when it is opened
    return False


def _identity(path):
  try:
    status = os.stat(path)
  except OSError:
    return path  # a dangling link, which is reported when it is opened
  return status.st_dev, status.st_ino
