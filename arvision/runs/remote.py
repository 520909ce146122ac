"""Runs at URLs (`gs://`, `s3://`, ...): a local copy that is kept in step.

A command works on a copy in the user's cache folder. Files that it writes or
removes there are uploaded or removed every few seconds, and at its end. A
process that is killed leaves what was uploaded until then, from which the next
one resumes.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from absl import logging

from arvision import atomic
from arvision.errors import ConfigError, DataError
from arvision.parallel import host
from arvision.training import lock
from arvision.training import workdir as workdirs

# Seconds between two uploads.
PERIOD = 20.0
# The process that trains at a URL.
OWNER = 'owner.json'
_URL = re.compile(r'([a-z][a-z0-9+]*)://[^\0]*[^/\0]/*')
# Hidden and unfinished files stay here.
_UNFINISHED = re.compile(r'(^|/)(\.|[^/]*\.orbax-checkpoint-tmp)')
_OWN = (OWNER, lock.FILE)
_FOLDERS = ('--workdir', '--init_from', '--resume_from')
# protocol -> extra with its package.
_EXTRAS = {'gs': 'gcs', 'gcs': 'gcs', 's3': 's3'}


class Mirror:
  """A local copy of a folder at a URL."""

  def __init__(self, url: str, folder: pathlib.Path, train: bool = False):
    """Opens the file system of the URL; reads and writes nothing.

    Args:
      url: the folder, which may not exist.
      folder: its local copy.
      train: whether a training writes there. Of two the later one goes on.

    Raises:
      ConfigError: an unknown protocol, or one whose package is missing.
    """
    self._url, self._folder = url, folder
    self._system, root = _file_system(url)
    self._root = root.rstrip('/')
    # Size and time of the local files that are the same there.
    self._same: dict[str, tuple[int, int]] = {}
    self._owner = secrets.token_hex(8) if train else ''
    self._owns = False
    self._busy = threading.Lock()

  def download(self) -> None:
    """Fetches all files.

    Raises:
      DataError: they cannot be read, or have names that lead elsewhere.
    """
    self._folder.mkdir(parents=True, exist_ok=True)
    with self._talking():
      for path in self._listed():
        name = path[len(self._root) :].lstrip('/')
        if '..' in name.split('/') or '\\' in name or not name:
          raise DataError(f"'{self._url}' holds a file of the name {name!r}")
        if name in _OWN or _UNFINISHED.search(name):
          continue
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._system.get_file(path, str(target))
        self._same[name] = _stamp(target)

  def sync(self) -> None:
    """Uploads files that have changed, and removes those that are gone here.

    The files by which a checkpoint counts as complete come last.

    Raises:
      ConfigError: another process trains there since.
      DataError: the files cannot be written.
    """
    with self._busy, self._talking():
      found = self._local()
      changed = [k for k, stamp in found.items() if self._same.get(k) != stamp]
      removed = sorted({*self._same} - {*found})
      if changed or removed:
        self._own()
      for name in sorted(changed, key=_turn):
        with contextlib.suppress(FileNotFoundError):  # removed since
          self._system.put_file(str(self._folder / name), self._target(name))
          self._same[name] = found[name]
      for name in removed:
        with contextlib.suppress(FileNotFoundError):
          self._system.rm_file(f'{self._root}/{name}')
        del self._same[name]

  def _listed(self):
    self._system.invalidate_cache()
    if not self._system.exists(self._root):
      return []
    return sorted(self._system.find(self._root))

  def _local(self):
    """name -> size and time of the files here."""
    found = {}
    for folder, _, files in os.walk(self._folder):
      for file in files:
        path = pathlib.Path(folder, file)
        name = path.relative_to(self._folder).as_posix()
        if name not in _OWN and not _UNFINISHED.search(name):
          with contextlib.suppress(FileNotFoundError):
            found[name] = _stamp(path)
    return found

  def _target(self, name):
    path = f'{self._root}/{name}'
    if 'file' in self._system.protocol:  # others have no folders
      self._system.makedirs(path.rpartition('/')[0], exist_ok=True)
    return path

  def _own(self):
    """Takes the run over at the first call; checks that it is still ours."""
    if not self._owner:
      return
    text = json.dumps({'owner': self._owner}).encode()
    path = self._target(OWNER)
    if not self._owns:
      self._system.pipe_file(path, text)
      self._owns = True
    elif self._system.cat_file(path) != text:
      raise ConfigError(
        f"'{self._url}' was taken over by another training; nothing more is "
        'written there'
      )

  @contextlib.contextmanager
  def _talking(self) -> Iterator[None]:
    try:
      yield
    except (ConfigError, DataError):
      raise
    except Exception as error:  # every file system has errors of its own
      text = ' '.join(str(error).split())[:300]
      raise DataError(
        f"'{self._url}' cannot be used ({type(error).__name__}: {text})"
      ) from error


@contextlib.contextmanager
def mirrored(url: str, train: bool = False) -> Iterator[str]:
  """A local copy of the run at a URL, whose changes are uploaded.

  Args:
    url: URL of the run, of any protocol of fsspec.
    train: see `Mirror`.

  Yields:
    the local folder.

  Raises:
    ConfigError, DataError: see `Mirror`. Where the last upload fails, the
      local copy is kept, and the error names it.
  """
  name = url.rstrip('/').rpartition('/')[2]
  digest = hashlib.sha256(url.encode()).hexdigest()[:12]
  place = host.cache_folder() / 'workdirs' / digest
  with atomic.beside(place) as hidden:
    folder = hidden / name
    mirror = Mirror(url, folder, train)
    mirror.download()
    ended = threading.Event()
    thread = threading.Thread(target=_upload, args=(mirror, ended), daemon=True)
    thread.start()
    kept = place.with_name(f'{name}-{secrets.token_hex(4)}')
    try:
      yield str(folder)
    except BaseException:
      ended.set()
      thread.join()
      try:
        _finish(mirror, folder, kept)
      except (ConfigError, DataError) as error:
        logging.error('%s', error)
      raise
    ended.set()
    thread.join()
    _finish(mirror, folder, kept)


def _finish(mirror, folder, kept):
  """The last upload; where it fails, the local copy is kept."""
  try:
    mirror.sync()
  except (ConfigError, DataError) as error:
    folder.rename(kept)
    raise type(error)(f"{error}; the local copy is '{kept}'") from error


def _upload(mirror, ended):
  while not ended.wait(PERIOD):
    try:
      mirror.sync()
    except (ConfigError, DataError) as error:
      logging.warning('%s', error)


def local_words(
  words: Iterable[str], stack: contextlib.ExitStack, train: bool
) -> list[str]:
  """A command line with local copies for the URLs of runs.

  Args:
    words: flags of a command.
    stack: keeps the copies until the command ends.
    train: whether the command trains in --workdir.
  """
  name = ''
  found: list[str] = []
  copies: dict[str, str] = {}
  for word in words:
    equals, value = '', word
    if word.startswith('--'):
      name, equals, value = word.partition('=')
    folder = name in _FOLDERS or name.startswith('--config.frozen.')
    if folder and _URL.fullmatch(value):
      if value not in copies:
        own = train and name == '--workdir'
        copies[value] = stack.enter_context(mirrored(value, own))
      word = f'{name}={copies[value]}' if equals else copies[value]
    found.append(word)
  return found


def check_processes(workdir: str | os.PathLike) -> None:
  """Checks that a local copy is that of the only process.

  Raises:
    ConfigError: there are several, which would write to copies of their own.
  """
  copies = (host.cache_folder() / 'workdirs').absolute()
  inside = pathlib.Path(workdir).absolute().is_relative_to(copies)
  if inside and jax.process_count() > 1:
    raise ConfigError(
      '--workdir: a URL is for a single process; mount the bucket on all hosts '
      'and name the mounted folder'
    )


def _file_system(url) -> tuple[Any, str]:
  found = _URL.fullmatch(url)
  protocol = found[1] if found else ''
  try:
    import fsspec

    return fsspec.core.url_to_fs(url)
  except ImportError as error:
    extra = _EXTRAS.get(protocol)
    line = f": pip install 'arvision[{extra}]'" if extra else ''
    raise ConfigError(f"'{url}': {error}{line}") from error
  except ValueError as error:
    raise ConfigError(
      f"'{url}': {error}; wanted a folder, or gs://, s3:// or another protocol "
      'of fsspec'
    ) from error


def _stamp(path):
  status = path.stat()
  return status.st_size, status.st_mtime_ns


def _turn(name):
  """Sorts checkpoints after other files, and what completes them last."""
  file = name.rpartition('/')[2]
  inside = name.startswith(f'{workdirs.CHECKPOINTS}/')
  return inside, inside and 'metadata' in file.lower(), name
