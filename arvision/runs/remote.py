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
import shutil
import signal
import threading
import time
from collections.abc import Iterator

import jax
from absl import logging

from arvision import atomic
from arvision.data import urls
from arvision.errors import ConfigError, DataError
from arvision.parallel import host
from arvision.training import lock
from arvision.training import workdir as workdirs

# Seconds between two uploads.
PERIOD = 20.0
# Seconds until a training looks whether it has something to upload first, so
# that a bucket that cannot be written stops it at once.
FIRST = 1.0
# Seconds before the last upload is tried again.
WAITS = (2.0, 10.0)
# The process that trains at a URL.
OWNER = 'owner.json'
# Hidden and unfinished files stay here.
_UNFINISHED = re.compile(r'(^|/)(\.|[^/]*\.orbax-checkpoint-tmp)')
# Names of files while they are uploaded.
_HALF = re.compile(r'(^|/)\.[^/]*\.upload$')
_OWN = (OWNER, lock.FILE)
# File systems whose files appear when they are whole, and that have no folders.
_OBJECTS = {'s3', 's3a', 'gs', 'gcs', 'abfs', 'abfss', 'az', 'memory'}
# Times that a listing is read anew, because another process removes files.
_TRIES = 5
# Stamp of a file at the URL that is not wanted here.
_ABSENT = (-1, -1)


class Mirror:
  """A local copy of a folder at a URL.

  Attributes:
    writes: whether something was written there.
  """

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
    self._system, self._root = urls.file_system(url)
    self._objects = bool(_OBJECTS & urls.protocols(self._system))
    # Size and time of the local files that are the same there.
    self._same: dict[str, tuple[int, int]] = {}
    # What trainings had written there when it was read.
    self._before: dict[str, urls.Facts] = {}
    self._owner = secrets.token_hex(8) if train else ''
    self._busy = threading.Lock()
    self._fault = ''
    self.writes = False

  def download(self) -> None:
    """Fetches all files, but of checkpoints only those that are complete.

    Raises:
      DataError: they cannot be read, have names that lead elsewhere, or do not
        fit on the disk.
    """
    with urls.talking(self._url):
      for left in reversed(range(_TRIES)):
        try:
          self._fetch()
          break
        except FileNotFoundError:
          # A training has removed an old checkpoint since it was listed.
          if not left:
            raise
          time.sleep(0.5)

  def _fetch(self):
    shutil.rmtree(self._folder, ignore_errors=True)
    self._folder.mkdir(parents=True)
    self._same.clear()
    everything = self._everything()
    listed = _finished(everything)
    self._before = _of_training(listed)
    halves = _incomplete(listed)
    wanted = {k: v for k, v in listed.items() if _checkpoint(k) not in halves}
    urls.check_room(self._url, self._folder, wanted)

    def get(name):
      target = self._folder / name
      target.parent.mkdir(parents=True, exist_ok=True)
      self._system.get_file(f'{self._root}/{name}', str(target))

    for name in urls.in_threads(get, wanted):
      self._same[name] = _stamp(self._folder / name)
    if self._owner:
      # A killed training has left them, and this one removes them.
      halves = {name for name in everything if _HALF.search(name)}
      self._same |= dict.fromkeys(({*listed} - {*wanted}) | halves, _ABSENT)

  def sync(self) -> None:
    """Uploads files that have changed, and removes those that are gone here.

    The log comes before the checkpoints, and the files by which a checkpoint
    counts as complete come last. Of a checkpoint that is gone, they are removed
    first.

    Raises:
      ConfigError: another process trains there since.
      DataError: the files cannot be written.
    """
    with self._busy, urls.talking(self._url):
      found = self._local()
      changed = [k for k, stamp in found.items() if self._same.get(k) != stamp]
      removed = sorted({*self._same} - {*found}, key=_turn, reverse=True)
      if not changed and all(self._same[name] == _ABSENT for name in removed):
        return
      self._own()
      for name in sorted(changed, key=_turn):
        if _completes(name):  # the files before may have taken minutes
          self._own()
        self._put(name)
        self._same[name] = found[name]
      for name in removed:
        with contextlib.suppress(FileNotFoundError):
          self._system.rm_file(f'{self._root}/{name}')
        del self._same[name]
        self._remove_empty(name)

  def _everything(self):
    """name -> size and version of the files at the URL."""
    found = urls.listing(self._system, self._root, self._url)
    if '' in found:
      raise DataError(f"'{self._url}' is a file, wanted a folder")
    return found

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
    # Of a checkpoint that is being removed, files may be left for a moment.
    halves = _incomplete(found)
    return {k: v for k, v in found.items() if _checkpoint(k) not in halves}

  def _put(self, name):
    """Uploads a file, which is whole when it has its name."""
    source, target = str(self._folder / name), f'{self._root}/{name}'
    try:
      if self._objects:
        self._system.put_file(source, target)
        return
      folder, _, file = target.rpartition('/')
      self._system.makedirs(folder, exist_ok=True)
      self._system.put_file(source, f'{folder}/.{file}.upload')
      self._system.mv(f'{folder}/.{file}.upload', target)
    except FileNotFoundError:
      if os.path.exists(source):  # there is no such bucket
        raise

  def _remove_empty(self, name):
    """Removes the folders of a file that is gone, where they are empty."""
    while not self._objects and (name := name.rpartition('/')[0]):
      try:
        self._system.rmdir(f'{self._root}/{name}')
      except OSError:
        return

  def _own(self):
    """Takes the run over at the first call; checks that it is still ours."""
    if not self._owner:
      return
    text = json.dumps({'owner': self._owner}).encode()
    path = f'{self._root}/{OWNER}'
    if self._fault:
      pass
    elif not self.writes:
      if not self._objects:
        self._system.makedirs(self._root, exist_ok=True)
      self._system.pipe_file(path, text)
      self.writes = True
      if _of_training(_finished(self._everything())) != self._before:
        self._fault = (
          f"'{self._url}': another training has written there since this one "
          'started, and is stopped now; run the same command again'
        )
    elif not self._system.exists(path) or self._system.cat_file(path) != text:
      self._fault = (
        f"'{self._url}' was taken over by another training; nothing more is "
        'written there'
      )
    if self._fault:
      raise ConfigError(self._fault)


@contextlib.contextmanager
def mirrored(url: str, train: bool = False) -> Iterator[str]:
  """A local copy of the run at a URL, whose changes are uploaded.

  Where uploads fail, a training goes on, and they are tried again. It is
  stopped where the first one fails, or where another training takes over.

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
    stopped: list[Exception] = []
    thread = threading.Thread(
      target=_upload, args=(mirror, url, ended, train, stopped), daemon=True
    )
    thread.start()
    kept = place.with_name(f'{name}-{secrets.token_hex(4)}')
    try:
      yield str(folder)
    except BaseException as error:
      ended.set()
      thread.join()
      try:
        _finish(mirror, folder, kept)
      except (ConfigError, DataError) as fault:
        if stopped:  # `error` is the interrupt of `_upload`
          raise fault from error
        logging.error('%s', fault)
      raise
    ended.set()
    thread.join()
    _finish(mirror, folder, kept)


def _finish(mirror, folder, kept):
  """The last upload; where it fails, the local copy is kept."""
  try:
    for wait in WAITS:
      try:
        mirror.sync()
        return
      except DataError as error:
        logging.warning('%s; tried again in %d s', error, wait)
        time.sleep(wait)
    mirror.sync()
  except (ConfigError, DataError) as error:
    folder.rename(kept)
    raise type(error)(f"{error}; the local copy is '{kept}'") from error
  except BaseException:  # Ctrl-C
    folder.rename(kept)
    logging.error("the last upload was stopped; the local copy is '%s'", kept)
    raise


def _upload(mirror, url, ended, train, stopped):
  """Uploads until the command has ended."""
  failing = False
  while not ended.wait(PERIOD if mirror.writes or not train else FIRST):
    try:
      mirror.sync()
    except (ConfigError, DataError) as error:
      if train and (isinstance(error, ConfigError) or not mirror.writes):
        stopped.append(error)
        logging.error('%s; the training is stopped', error)
        os.kill(os.getpid(), signal.SIGINT)
        return
      if not failing:
        logging.warning('%s; tried again every %d s', error, PERIOD)
      failing = True
      continue
    if failing:
      logging.warning("'%s' can be written again, and is up to date", url)
    failing = False


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


def _stamp(path):
  status = path.stat()
  return status.st_size, status.st_mtime_ns


def _checkpoint(name):
  """The step of the checkpoint that a file belongs to, '' for none."""
  parts = name.split('/')
  inside = len(parts) > 2 and parts[0] == workdirs.CHECKPOINTS
  return parts[1] if inside and parts[1].isdigit() else ''


def _completes(name):
  return name.partition('/')[2].partition('/')[2] in workdirs.MARKERS


def _incomplete(names):
  """The steps of checkpoints that lack files by which they are complete."""
  steps = {_checkpoint(name) for name in names} - {''}
  return {
    step
    for step in steps
    if any(
      f'{workdirs.CHECKPOINTS}/{step}/{marker}' not in names
      for marker in workdirs.MARKERS
    )
  }


def _finished(everything):
  """The files of a listing that are whole and belong to the run."""
  return {
    name: facts
    for name, facts in everything.items()
    if name not in _OWN and not _UNFINISHED.search(name)
  }


def _of_training(listed):
  return {
    name: facts
    for name, facts in listed.items()
    if name == workdirs.LOG or _checkpoint(name)
  }


def _turn(name):
  """Sorts checkpoints after other files, and what completes them last."""
  return bool(_checkpoint(name)), _completes(name), name
