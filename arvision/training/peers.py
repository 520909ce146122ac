"""Copies of the train state in the memory of the hosts, a second tier of
checkpoints.

Every few steps each process writes its shards to a folder in memory, and sends
those that its neighbour does not have to the neighbour, which holds them too. The
neighbour is on another host. After a process has died with its host, the others
have its shards, and all go on from the step of the copies.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from arvision import atomic
from arvision.errors import ConfigError
from arvision.parallel import host, ring
from arvision.tasks.base import TrainState
from arvision.training import packs
from arvision.training import workdir as workdirs
from arvision.training.shards import Shards

_KEY = 'config.checkpoint.memory'
_SHARED = pathlib.Path('/dev/shm')
# Files of a generation: shards that the neighbour has too, those that it gets,
# and those of the process before.
_OWN = ('kept', 'sent')
_COPY = 'copy'
# Position in the data and facts of the run. Every process has this block.
_META = 'meta'
_META_BYTES = 2**20
# Generations of a process at any time, one that is being written included.
_MOST = 4


def check_processes() -> None:
  """Checks that there is another process that can hold a copy.

  Raises:
    ConfigError: there is not.
  """
  if jax.process_count() == 1:
    raise ConfigError(
      f'{_KEY}.every: got 1 process, wanted 2 or more, each on its own host: the '
      f'memory of the only one is lost with it. Turn it off with '
      f'--{_KEY}.every.steps=0'
    )


def neighbour(hosts: Sequence[Any]) -> int:
  """Distance from a process to the one that holds its copies.

  Args:
    hosts: host of every process. If all are the same, copies survive the death
      of a process and not that of the host.

  Raises:
    ConfigError: for some processes there is none on another host.
  """
  count = len(hosts)
  if len({*hosts}) == 1:
    return 1
  for shift in range(1, count):
    if all(hosts[i] != hosts[(i + shift) % count] for i in range(count)):
      return shift
  raise ConfigError(
    f'{_KEY}.every: processes are divided unevenly among hosts, so that some '
    'have no neighbour on another host; start as many processes on each, or '
    f'turn it off with --{_KEY}.every.steps=0'
  )


class Memory:
  """The copies of one run. All processes call all methods together.

  Attributes:
    worked: seconds that the start before was in steps up to the state that
      `restore` returned; None: it returned none.
  """

  def __init__(
    self, config: ConfigDict, workdir: str | os.PathLike, abstract: TrainState
  ):
    """Checks hosts, folder and free memory; writes nothing.

    Args:
      config: the config; `checkpoint.memory.folder` is the folder.
      workdir: folder of the run, which has the key of its folders in memory.
      abstract: shapes, dtypes and shardings of the state.

    Raises:
      ConfigError: see `check_processes` and `neighbour`; or the folder is not
        there, or has no room.
    """
    check_processes()
    self._workdir = pathlib.Path(workdir).absolute()
    self._root = pathlib.Path(config.checkpoint.memory.get('folder') or _SHARED)
    self._index = jax.process_index()
    self._shards = Shards(abstract)
    self._names = [_META, *self._shards.names]
    self._hosts = [row.tobytes() for row in ring.table(_host())]
    self._shift = neighbour(self._hosts)
    self._slot = self._hosts[: self._index].count(self._hosts[self._index])
    self._key = self._read_key()
    self.worked: float | None = None
    # Steps: of the newest generation that all have, and of the last try.
    self._whole: int | None = None
    self._tried: int | None = None
    self._ok = True
    self._check_room()

  def _of(self, process):
    """Names of the blocks that a process needs."""
    return {_META, *self._shards.of(process)}

  def _read_key(self):
    """The key of the run's folders, the same in all processes; '' for none."""
    text = b''
    if self._index == 0:
      with contextlib.suppress(OSError):
        text = (self._workdir / workdirs.MEMORY).read_bytes()[:32]
    row = np.frombuffer(text.ljust(32, b' '), np.uint8)
    found = ring.table(row)[0].tobytes().decode('ascii', 'replace')
    return found if re.fullmatch('[0-9a-f]{32}', found) else ''

  @property
  def _stem(self):
    name = hashlib.sha256(str(self._workdir).encode()).hexdigest()[:12]
    return f'arvision-{name}-'

  @property
  def _folder(self):
    return self._root / f'{self._stem}{self._key}' / str(self._slot)

  def _check_room(self):
    """Counts two generations of all processes of this host."""
    before = (self._index - self._shift) % len(self._hosts)
    held = self._shards.of(self._index) | self._shards.of(before)
    sizes = {k: self._shards.bytes[k] for k in held}
    need = 2 * (packs.size(sizes) + _META_BYTES)
    problem, free = '', 0
    if not self._root.is_dir():
      problem = f"{_KEY}.folder='{self._root}': there is no such folder"
    else:
      free = min(shutil.disk_usage(self._root).free, _available())
    there = sum(
      p.stat().st_size for p in self._folder.rglob('*') if p.is_file()
    )
    rows = ring.table(np.asarray([need, there], np.int64))
    own = [h == self._hosts[self._index] for h in self._hosts]
    need, there = rows[own].sum(0).tolist()
    if not problem and need > free + there:
      problem = (
        f"{_KEY}.folder='{self._root}': {(free + there) / 1e6:,.1f} MB of memory "
        f'are free, {need / 1e6:,.1f} MB wanted for two copies of the state of '
        f'{sum(own)} processes and their neighbours; turn it off with '
        f'--{_KEY}.every.steps=0'
      )
    if not host.all_agree(not problem):
      raise ConfigError(problem or f'{_KEY}: another process has no room')

  def restore(
    self,
    abstract: TrainState,
    set_position: Callable[[Any], None],
    facts: Mapping[str, Any],
    after: int,
  ) -> tuple[TrainState, int] | None:
    """The newest state that the processes have together.

    Args:
      abstract: as in `__init__`.
      set_position: `set_state` of the data iterator.
      facts: see `Checkpoints`; a state with others is not used.
      after: only newer steps count.

    Returns:
      the state and its step, or None without one.
    """
    if not self._key:
      return None
    rows = np.full(_MOST, -1, np.int64)
    own = self._steps()[-_MOST:]
    rows[: len(own)] = own
    steps = {int(step) for step in ring.table(rows).reshape(-1)}
    for step in sorted((s for s in steps if s > max(after, 0)), reverse=True):
      blocks = self._gather(step)
      if blocks is None:
        continue
      meta = json.loads(blocks[_META].tobytes())
      if meta['facts'] != dict(facts):
        logging.warning(
          'the state of step %d in memory is of other facts', step
        )
        continue
      set_position(meta['data'])
      self.worked = meta['worked']
      self._whole = step
      return self._shards.state(abstract, blocks), step
    return None

  def _gather(self, step):
    """All blocks that this process needs of a step, or None."""
    names, folder = self._names, self._folder / str(step)
    blocks: dict[str, np.ndarray] = {}
    for name in (*_OWN, _COPY) if step in self._steps() else ():
      blocks |= packs.read(folder / name)
    have = np.packbits([name in blocks for name in names])
    held = np.unpackbits(ring.table(have), axis=1, count=len(names)) > 0
    if not held.any(0).all():
      lost = [i for i, row in enumerate(held) if not row.any()]
      host.say(f'step {step} is not whole in memory; lost by processes {lost}')
      return None
    needs = [self._of(i) for i in range(len(held))]
    lack = np.array([[n in need for n in names] for need in needs]) & ~held
    if lack.any():
      who = [i for i, row in enumerate(lack) if row.any()]
      host.say(f'processes {who} get their shards from the memory of others')
    for shift in range(1, len(held)):
      take = lack & np.roll(held, -shift, axis=0)
      lack &= ~take
      if take.any():  # all processes know all of this
        asked = take[(self._index - shift) % len(held)]
        blocks |= self._fetch(blocks, np.flatnonzero(asked), shift)
    whole = needs[self._index] <= blocks.keys()
    return blocks if host.all_agree(whole) else None

  def _fetch(self, blocks, asked, shift):
    """Gives blocks to the process `shift` before, and gets some likewise."""
    self._make_folders()
    names = self._names
    out, come = self._folder / 'out', self._folder / 'in'
    # What cannot be written is not whole, and all use another step.
    with contextlib.suppress(OSError):
      packs.write(out, {names[i]: blocks[names[i]] for i in asked})
    with contextlib.suppress(OSError):
      ring.send(out, come, -shift)
    found = packs.read(come)
    out.unlink(missing_ok=True)
    come.unlink(missing_ok=True)
    return found

  def start(self) -> str:
    """Makes the folders; returns a line about them.

    Raises:
      ConfigError: a folder is there that belongs to someone else.
    """
    if not self._key:
      new = np.frombuffer(secrets.token_hex(16).encode(), np.uint8)
      self._key = ring.table(new)[0].tobytes().decode()
      if self._index == 0:
        with atomic.whole(self._workdir / workdirs.MEMORY) as file:
          file.write_text(self._key + '\n')
    for old in self._root.glob(f'{self._stem}*'):
      if old != self._folder.parent:
        shutil.rmtree(old, ignore_errors=True)
    self._make_folders()
    self._remove_but(self._whole)
    own = self._shards.of(self._index)
    size = sum(self._shards.bytes[k] for k in own)
    line = f'copies in memory: {size / 1e6:,.1f} MB a process, in {self._root}'
    if len({*self._hosts}) == 1:
      line += '; all processes are on one host, and are lost with it'
    return line

  def _make_folders(self):
    for folder in (self._folder.parent, self._folder):
      folder.mkdir(mode=0o700, exist_ok=True)
      if not _is_private(folder):
        raise ConfigError(f"'{folder}' is not a private folder of this user")

  def _steps(self):
    """Steps of the generations that this user has written, rising."""
    with contextlib.suppress(FileNotFoundError):
      if _is_private(self._folder.parent) and _is_private(self._folder):
        names = [path.name for path in self._folder.iterdir()]
        return sorted(int(name) for name in names if name.isdigit())
    return []

  def _remove_but(self, step):
    for path in self._folder.iterdir():
      if path.name != str(step):
        shutil.rmtree(path, ignore_errors=True)

  def save(
    self,
    step: int,
    state: TrainState,
    position: Any,
    facts: Mapping[str, Any],
    worked: float,
  ) -> None:
    """Writes a generation, and holds that of the process before.

    One that a process cannot write is left out by all, with a warning; the one
    before it stays.

    Args:
      step: step of the state.
      state: the state.
      position: `get_state()` of the data iterator, the same in all processes.
      facts: see `Checkpoints`.
      worked: seconds in steps since the start.
    """
    if self._tried is not None and host.all_agree(self._ok):
      self._whole = self._tried
    self._remove_but(self._whole)
    meta = json.dumps(
      {'data': position, 'facts': dict(facts), 'worked': worked}
    )
    blocks = {_META: np.frombuffer(meta.encode(), np.uint8)}
    blocks |= self._shards.local(state)
    theirs = self._of((self._index + self._shift) % len(self._hosts))
    folder = self._folder / f'{step}.partial'
    self._tried, self._ok = step, True
    try:
      folder.mkdir(mode=0o700)
      kept = {k: x for k, x in blocks.items() if k in theirs}
      packs.write(folder / 'kept', kept)
      sent = {k: x for k, x in blocks.items() if k not in theirs}
      packs.write(folder / 'sent', sent)
    except OSError as error:
      self._failed(step, error)
    try:
      ring.send(folder / 'sent', folder / _COPY, self._shift)
      folder.rename(self._folder / str(step))
    except OSError as error:
      self._failed(step, error)

  def _failed(self, step, error):
    self._ok = False
    logging.warning('step %d has no copy in memory: %s', step, error)

  def remove(self) -> None:
    """Removes the folders, at the end of a run."""
    shutil.rmtree(self._folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # others of this host may have theirs
      self._folder.parent.rmdir()


def _is_private(folder):
  found = folder.lstat()
  own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
  return own and not found.st_mode & 0o077


def _host():
  """(32,) uint8, the same in all processes of a machine."""
  try:
    name = pathlib.Path('/proc/sys/kernel/random/boot_id').read_bytes()
  except OSError:
    name = socket.gethostname().encode()
  return np.frombuffer(hashlib.sha256(name).digest(), np.uint8)


def _available():
  """Bytes of memory that are free, where the system says it."""
  with contextlib.suppress(OSError, ValueError, IndexError):
    text = pathlib.Path('/proc/meminfo').read_text()
    return int(re.findall(r'MemAvailable:\s+(\d+) kB', text)[0]) * 1024
  return 2**62
