"""Data at URLs (`gs://`, `s3://`, ...): copied once, and then read as files.

The copy lies in the user's cache folder. Every start lists the files at the URL
and fetches those that are new or have changed.
"""

import concurrent.futures
import contextlib
import datetime
import fcntl
import fnmatch
import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from absl import logging

from arvision import atomic, build
from arvision.data.files import shown
from arvision.errors import ConfigError, DataError
from arvision.parallel import host

URL = re.compile(r'([a-z][a-z0-9+]*)://[^\0]*[^/\0]/*')
# Keys of a config of data with a path, which may be a URL.
KEYS = ('path', 'folder', 'data_dir', 'font', 'held_out_path')
# protocol -> extra with its package.
_EXTRAS = {'gs': 'gcs', 'gcs': 'gcs', 's3': 's3', 'hf': 'hub'}
# What tells two versions of a file apart, of the first kind that is there.
_VERSIONS = ('ETag', 'etag', 'md5Hash', 'mtime', 'LastModified', 'created')
_THREADS = 16
# Seconds between two lines about a copy.
_PERIOD = 30.0

T = TypeVar('T')
# Size, -1 if it is not known, and version of a file.
Facts = tuple[int, str]


def here(block: Any) -> Any:
  """A block of data, with paths of local copies for the URLs in it.

  Args:
    block: a block of a config; it is not changed.

  Raises:
    ConfigError, DataError: see `local`.
  """
  if not hasattr(block, 'items'):
    return block
  found = {}
  for name, value in block.items():
    if name in KEYS and isinstance(value, str) and URL.fullmatch(value):
      value = local(value, _wanted(block, name))
    found[name] = here(value)
  return found


def _wanted(block, key):
  """Patterns of the files that a block reads below a path; () for all."""
  known = build.fields(build.resolve(block['type'])) if 'type' in block else {}
  if key == 'path' and {'files', 'held_out_files'} <= {*(known or ())}:
    names = (build.value(block, k) for k in ('files', 'held_out_files'))
    return tuple(str(name) for name in names if name)
  if key == 'data_dir' and 'builder' in (known or ()):
    name = re.split('[/:]', str(build.value(block, 'builder')))[0]
    return (f'{glob.escape(name)}/*',)
  return ()


def local(url: str, patterns: Iterable[str] = ()) -> str:
  """The path of a copy of the file or the folder at a URL.

  Names that start with a dot are left out. Processes of one machine wait for
  one another, and a file gets its name when it is whole.

  Args:
    url: of any protocol of fsspec; `file://` is not copied.
    patterns: names of files below the folder that are wanted, as `fnmatch`
      takes them; () for all.

  Raises:
    ConfigError: see `file_system`.
    DataError: nothing is there, it cannot be read, it has names that lead
      elsewhere, or the disk is too full.
  """
  system, root = file_system(url)
  if 'file' in protocols(system):
    return root
  last = root.rstrip('/').rpartition('/')[2]
  if last in ('', '.', '..'):
    raise ConfigError(f"'{url}': wanted a URL with the name of a folder")
  place = _place(url)
  target = place / 'files' / last
  with _locked(place, url):
    with talking(url):
      files = listing(system, root, url)
    single = [*files] == ['']
    if single:
      files, target = {last: files['']}, target.parent
    tests = tuple(patterns)
    wanted = {
      name: facts
      for name, facts in files.items()
      if single
      or not hidden(name)
      and (not tests or any(fnmatch.fnmatchcase(name, t) for t in tests))
    }
    if not wanted:
      some = f' of the name {" or ".join(tests)}' if tests else ''
      raise DataError(f"'{url}': no file{some} is there, or no such folder")
    _update(system, root, url, target, wanted, files, single)
  return str(target / last if single else target)


def _place(url):
  digest = hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:12]
  return host.cache_folder() / 'data' / digest


def _update(system, root, url, target, wanted, there, single):
  """Removes what is gone at a URL, and copies what is new."""
  place = _place(url)
  copied = _copied(place)
  for folder, _, files in os.walk(target):
    for file in files:
      path = pathlib.Path(folder, file)
      name = path.relative_to(target).as_posix()
      if name not in there or hidden(name) and not single:
        path.unlink()
  left = {
    name: facts
    for name, facts in wanted.items()
    if copied.get(name) != facts or _size(target / name) != facts[0]
  }
  if not left:
    return
  size = check_room(url, place, left)
  logging.info(
    "copying %d of %d files of '%s', %s bytes, to '%s'",
    *(len(left), len(wanted), url, f'{size:,}', target),
  )

  def copy(name):
    with atomic.whole(target / name) as new:
      system.get_file(root if single else f'{root}/{name}', str(new))
      if left[name][0] not in (-1, size := new.stat().st_size):
        raise DataError(
          f"'{url}': {shown(name)} came with {size:,} bytes, wanted "
          f'{left[name][0]:,}; run the same command again'
        )

  told, start = time.monotonic(), time.monotonic()
  done, count = 0, 0
  with talking(url), (place / 'copied.jsonl').open('a') as index:
    for name in in_threads(copy, left):
      # A line that a killed process has not finished ends here.
      index.write('\n' + json.dumps([name, *left[name]]) + '\n')
      count, done = count + 1, done + max(left[name][0], 0)
      if time.monotonic() - told > _PERIOD:
        told = time.monotonic()
        logging.info(
          "'%s': %d of %d files, %s of %s bytes",
          *(url, count, len(left), f'{done:,}', f'{size:,}'),
        )
  logging.info("copied '%s' in %.0f s", url, time.monotonic() - start)


def _copied(place):
  """name -> facts of the files that were copied; the last line counts."""
  found: dict[str, Facts] = {}
  try:
    lines = (place / 'copied.jsonl').read_text().splitlines()
  except FileNotFoundError:
    return found
  for line in filter(None, lines):
    with contextlib.suppress(ValueError):  # half a line
      name, size, version = json.loads(line)
      found[name] = (size, version)
  return found


@contextlib.contextmanager
def _locked(place, url):
  """Only one process at a time copies from a URL."""
  place.mkdir(parents=True, exist_ok=True)
  with (place / 'lock').open('a') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      logging.info("waiting for another process that copies '%s'", url)
      fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def _size(path):
  return path.stat().st_size if path.is_file() else None


def file_system(url: str) -> tuple[Any, str]:
  """The file system of a URL, and the path in it, without a last '/'.

  Raises:
    ConfigError: an unknown protocol, or one whose package is missing.
  """
  found = URL.fullmatch(url)
  protocol = found[1] if found else ''
  try:
    import fsspec

    system, root = fsspec.core.url_to_fs(url)
    return system, root.rstrip('/')
  except ImportError as error:
    extra = _EXTRAS.get(protocol)
    line = f": pip install 'arvision[{extra}]'" if extra else ''
    raise ConfigError(f"'{url}': {error}{line}") from error
  except ValueError as error:
    raise ConfigError(
      f"'{url}': {error}; wanted a folder, or gs://, s3:// or another protocol "
      'of fsspec'
    ) from error


def protocols(system: Any) -> set[str]:
  """The names of the protocol of a file system."""
  found = system.protocol
  return {found} if isinstance(found, str) else {*found}


@contextlib.contextmanager
def talking(url: str) -> Iterator[None]:
  """Turns the errors of a file system into one DataError."""
  try:
    yield
  except (ConfigError, DataError):
    raise
  except Exception as error:  # every file system has errors of its own
    text = ' '.join(str(error).split())[:300]
    raise DataError(
      f"'{url}' cannot be used ({type(error).__name__}: {text})"
    ) from error


def listing(system: Any, root: str, url: str) -> dict[str, Facts]:
  """name below a folder -> size and version of all files, sorted.

  Args:
    system, root: see `file_system`. Of a file, the name is ''.
    url: for errors.

  Raises:
    DataError: a name would lead out of the folder.
  """
  system.invalidate_cache()
  try:
    entries = system.find(root, detail=True)
  except FileNotFoundError:
    return {}
  found = {}
  for path, entry in sorted(entries.items()):
    # Consoles of buckets make empty objects for folders.
    if path.endswith('/') or entry.get('type', 'file') != 'file':
      continue
    name = path[len(root) :].lstrip('/')
    parts = name.split('/')
    if not path.startswith(root) or {'..', '.'} & {*parts} or '\\' in name:
      raise DataError(f"'{url}' holds a file of the name {name!r}")
    size = entry.get('size')
    kind = next((k for k in _VERSIONS if entry.get(k)), None)
    version = entry[kind] if kind else ''
    if isinstance(version, datetime.datetime):
      version = version.isoformat()
    found[name] = (-1 if size is None else int(size), str(version))
  return found


def hidden(name: str) -> bool:
  """Whether a name, or a folder in it, starts with a dot."""
  return any(part.startswith('.') for part in name.split('/'))


def check_room(
  url: str, folder: pathlib.Path, files: Mapping[str, Facts]
) -> int:
  """The bytes of some files.

  Raises:
    DataError: the disk of `folder` has no room for them.
  """
  size = sum(max(facts[0], 0) for facts in files.values())
  free = shutil.disk_usage(folder).free
  if size > free:
    raise DataError(
      f"'{url}': {size:,} bytes to copy, but {free:,} are free in '{folder}'; "
      'set XDG_CACHE_HOME to a folder on a larger disk'
    )
  return size


def in_threads(function: Callable[[str], T], names: Iterable[str]):
  """Calls a function for every name, and yields the names that are done.

  The first error ends it; calls that have not begun are left out.
  """
  pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
  try:
    calls = {pool.submit(function, name): name for name in names}
    for call in concurrent.futures.as_completed(calls):
      call.result()
      yield calls[call]
  finally:
    pool.shutdown(cancel_futures=True)
