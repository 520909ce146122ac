"""A lock file that allows one writer per folder."""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from arvision.errors import ConfigError
from arvision.parallel import host

FILE = 'lock.json'

# Seconds between two heartbeats, and without one until a writer on another
# machine counts as dead.
_BEAT = 10.0
_PATIENCE = 60.0


@contextlib.contextmanager
def held(workdir: str | os.PathLike) -> Iterator['Lock']:
  """Locks a folder against other writers; creates the folder if needed.

  Process 0 holds the lock for all processes. The lock of a dead process is
  taken over.

  Raises:
    ConfigError: in all processes, if another writer holds the lock.
  """
  lock = Lock(pathlib.Path(workdir))
  first, problem = jax.process_index() == 0, ''
  if first:
    try:
      lock.take()
    except (ConfigError, OSError) as error:
      problem = str(error)
  if not host.all_agree(not problem):
    raise ConfigError(
      problem or f"--workdir='{workdir}': process 0 could not lock it"
    )
  try:
    yield lock
  finally:
    if first:
      lock.release()


class Lock:
  """The lock of one process on a folder. See `held`."""

  def __init__(
    self,
    folder: pathlib.Path,
    beat: float = _BEAT,
    patience: float = _PATIENCE,
  ):
    """Prepares the lock; `take` acquires it.

    Args:
      folder: folder to lock.
      beat: seconds between two heartbeats.
      patience: seconds without a heartbeat until the lock of another machine is
        taken over.
    """
    self._path = folder / FILE
    self._beat, self._patience = beat, patience
    self._made: list[pathlib.Path] = []
    self._text = json.dumps({**_machine(), **_process(os.getpid())}) + '\n'
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._heartbeat, daemon=True)

  def take(self) -> None:
    """Acquires the lock.

    Raises:
      ConfigError: a live process holds it.
      OSError: the file cannot be written.
    """
    folder = self._path.parent
    self._made = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    while not self._create():
      there = _read(self._path)
      if there is None:
        continue  # released in between
      if self._lives(there):
        raise ConfigError(self._refusal(_read(self._path) or there))
      if self._move_away(there):
        host.say(
          f'taking over from {_name(there)}, which does not exist any more'
        )
    self._thread.start()

  def _create(self):
    try:
      file = self._path.open('x')
    except FileExistsError:
      return False
    try:
      with file:
        file.write(self._text)
    except OSError:  # a full disk
      self._path.unlink()
      raise
    return True

  def _move_away(self, there):
    """Removes a dead lock, unless another process was faster."""
    aside = self._path.with_name(f'.{FILE}.{os.getpid()}')
    try:
      self._path.rename(aside)
    except FileNotFoundError:
      return False
    stale = aside.read_text(errors='replace') == there['text']
    if not stale:  # the new lock of that other process
      aside.rename(self._path)
      return False
    aside.unlink()
    return True

  def _lives(self, there):
    if _here(there):
      process = {k: there.get(k) for k in ('pid', 'started')}
      return _process(there.get('pid')) == process
    # Clocks of two machines differ, so the heartbeat is watched for a while.
    age = time.time() - there['beat']
    wait = min(max(self._patience - age, 2.5 * self._beat), self._patience)
    host.say(
      f'{self._path} is held by {_name(there)}: waiting up to {wait:.0f} s for '
      'its heartbeat'
    )
    end = time.monotonic() + wait
    while time.monotonic() < end:
      time.sleep(min(1.0, self._beat / 4))
      now = _read(self._path)
      if now is None:
        return False
      if now != there:
        return True
    return False

  def _refusal(self, there):
    text = (
      f"'{self._path.parent}' is being written to by {_name(there)}; wait for "
      'it, stop it, or choose another --workdir'
    )
    if not _here(there):
      text += f'. If that process has certainly ended, delete {self._path}'
    return text

  def _heartbeat(self):
    while not self._ended.wait(self._beat):
      with contextlib.suppress(OSError):
        if self.mine():
          os.utime(self._path)

  def mine(self) -> bool:
    """Whether this process still holds the lock."""
    there = _read(self._path)
    return there is not None and there['text'] == self._text

  def check(self) -> None:
    """Checks that no other process has taken the lock over.

    Raises:
      ConfigError: in all processes, if one has.
    """
    if not host.all_agree(jax.process_index() != 0 or self.mine()):
      raise ConfigError(
        f"'{self._path.parent}' was taken over by another process while this "
        'one sent no heartbeat; nothing more is written here'
      )

  def release(self) -> None:
    """Releases the lock; removes folders that were created for it alone."""
    self._ended.set()
    self._thread.join()
    with contextlib.suppress(OSError):
      if self.mine():
        self._path.unlink()
      for folder in self._made:
        folder.rmdir()  # fails, and ends the loop, where it is not empty


def _read(path) -> dict[str, Any] | None:
  """Content of a lock, its 'text' and last 'beat'; None without a lock."""
  try:
    # Opened, since file servers may cache the attributes of a name.
    with path.open('rb') as file:
      text = file.read().decode(errors='replace')
      beat = os.fstat(file.fileno()).st_mtime
  except FileNotFoundError:
    return None
  try:
    found = json.loads(text)
  except ValueError:
    found = {}
  found = found if isinstance(found, dict) else {}
  return {**found, 'text': text, 'beat': beat}


def _name(there):
  return f'process {there.get("pid", "?")} on {there.get("host", "?")}'


def _here(there):
  return all(there.get(k) == v for k, v in _machine().items())


def _machine():
  """Identity of the machine and of its space of process ids."""
  return {
    'host': socket.gethostname(),
    'boot': _proc('sys/kernel/random/boot_id'),
    'pids': _pid_space(),
  }


def _pid_space():
  try:
    return os.readlink('/proc/self/ns/pid')
  except OSError:
    return ''


def _process(pid):
  """Id and start time of a live process; a reused id has another start time.

  Returns:
    {'pid', 'started'}, or {} without such a process.
  """
  if not isinstance(pid, int) or pid <= 0:
    return {}
  if not _proc('self/stat'):  # not Linux
    try:
      os.kill(pid, 0)
    except ProcessLookupError:
      return {}
    except PermissionError:
      pass
    return {'pid': pid, 'started': ''}
  # After the name, which may have spaces: state, ..., start time in ticks.
  fields = _proc(f'{pid}/stat').rpartition(')')[2].split()
  if len(fields) < 20 or fields[0] in 'ZX':
    return {}
  return {'pid': pid, 'started': fields[19]}


def _proc(name):
  try:
    return pathlib.Path('/proc', name).read_text().strip()
  except OSError:
    return ''
