"""Folders of ArrayRecord shards with a `spec.json`, written atomically.

    <folder>/spec.json
    <folder>/train-00000-of-00004.array_record
    <folder>/held_out-00000-of-00001.array_record

A record is a msgpack map (Flax's, which supports numpy arrays). Reading it
cannot run code.
"""

import bisect
import contextlib
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import flax.serialization
import grain
import numpy as np
from array_record.python import array_record_module

from arvision import atomic
from arvision.errors import DataError

SPEC = 'spec.json'
# One record per group, so that a random read costs one record. Uncompressed:
# PNG, JPEG and codes do not get smaller, and decompression costs more than
# reading.
_WRITER_OPTIONS = 'group_size:1,uncompressed'


class BrokenRecord(DataError):
  """A record whose bytes do not match their hash, or cannot be read."""


def pack(record: dict[str, Any]) -> bytes:
  """A record of arrays, bytes, numbers and text -> msgpack."""
  return flax.serialization.msgpack_serialize(record)


def unpack(data: bytes, name: str) -> dict[str, Any]:
  """The inverse of `pack`.

  Raises:
    DataError: not a record of `pack`.
  """
  try:
    record = flax.serialization.msgpack_restore(data)
  except Exception as error:  # msgpack has no common base class of errors
    raise DataError(
      f'{name}: not a record of arvision ({error}); write the folder anew'
    ) from error
  if not isinstance(record, dict):
    raise DataError(f'{name}: wanted a map, got {type(record).__name__}')
  return record


@contextlib.contextmanager
def new_folder(path: str) -> Iterator[pathlib.Path]:
  """A temporary folder that is renamed to `path`, or removed after an error.

  Raises:
    DataError: `path` exists and is not an empty folder.
  """
  target = pathlib.Path(path)
  if target.exists() and (not target.is_dir() or any(target.iterdir())):
    raise DataError(
      f'{target}: exists and is not empty; name another folder, or delete it'
    )
  with atomic.beside(target) as folder:
    yield folder
    try:
      atomic.finish(folder, target)
    except OSError as error:
      raise DataError(
        f'{target}: {error.strerror}; does another process write there?'
      ) from error


class Shards:
  """Writes the records of one split to `count` files, round robin."""

  def __init__(self, folder: pathlib.Path, split: str, count: int):
    if count < 1:
      raise DataError(f'{folder}: wanted at least one shard, got {count}')
    self.split = split
    self.written = 0
    self._writers = [
      array_record_module.ArrayRecordWriter(
        str(folder / f'{split}-{i:05d}-of-{count:05d}.array_record'),
        _WRITER_OPTIONS,
      )
      for i in range(count)
    ]

  def write(self, record: dict[str, Any]) -> None:
    self._writers[self.written % len(self._writers)].write(pack(record))
    self.written += 1

  def close(self) -> None:
    for writer in self._writers:
      writer.close()


def write_splits(
  folder: pathlib.Path,
  records: Iterable[tuple[str, dict[str, Any]]],
  shards: int,
) -> dict[str, int]:
  """Writes (split, record) pairs; splits are 'train' and 'held_out'.

  Returns:
    split -> number of records.
  """
  files: dict[str, Shards] = {}
  try:
    for split, record in records:
      if split not in files:
        files[split] = Shards(folder, split, shards)
      files[split].write(record)
  finally:
    for writer in files.values():
      writer.close()
  return {split: file.written for split, file in files.items()}


def write_spec(folder: pathlib.Path, spec: dict[str, Any]) -> None:
  """Writes `spec.json`."""
  text = json.dumps(spec, indent=2, ensure_ascii=False)
  (folder / SPEC).write_text(text + '\n', encoding='utf-8')


def read_spec(path: str, kind: str, version: int) -> dict[str, Any]:
  """Reads `spec.json` and checks its kind and version.

  Raises:
    DataError: no such folder, another kind, or another version.
  """
  file = pathlib.Path(path) / SPEC
  if not file.is_file():
    raise DataError(
      f'{file}: no such file; set config.data to a folder of {kind} written by '
      'arvision'
    )
  try:
    spec = json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise DataError(f'{file}: not JSON ({error})') from error
  got = (spec.get('kind'), spec.get('version'))
  if got != (kind, version):
    raise DataError(
      f'{file}: holds {got[0]} of format {got[1]}, wanted {kind} of format '
      f'{version}; write the folder anew'
    )
  return spec


class Opened:
  """Random access to the raw records of several shards, one after another.

  Its errors name the shard. It can be pickled.
  """

  def __init__(self, files: Sequence[pathlib.Path]):
    """Opens every shard once, for its number of records.

    Raises:
      DataError: a shard is damaged, or truncated.
    """
    self.files = files
    self._shards = []
    for file in files:
      try:
        self._shards.append(grain.sources.ArrayRecordDataSource([str(file)]))
      except Exception as error:  # the reader raises RuntimeError and others
        raise DataError(
          f'{file}: the shard is damaged or truncated ({_short(error)}); copy or '
          'write the folder anew'
        ) from error
    self.counts = [len(shard) for shard in self._shards]
    self._ends = list(itertools.accumulate(self.counts))

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, i: int) -> bytes:
    k = bisect.bisect_right(self._ends, i)
    at = i - self._ends[k] + self.counts[k]
    try:
      return self._shards[k][at]
    except Exception as error:
      raise BrokenRecord(
        f'record {at} of {self.files[k]} cannot be read ({_short(error)})'
      ) from error


def _short(error):
  """The first words of the reader, which go on with hashes and places."""
  text = str(error).partition(' (computed')[0].partition('; ')[0]
  return text or type(error).__name__


def open_split(path: str, split: str, count: int) -> Opened:
  """Random access to the raw records of one split.

  Args:
    path: the folder.
    split: 'train' or 'held_out'.
    count: number of records in `spec.json`.

  Raises:
    DataError: shards are missing or damaged, or hold another number of records.
  """
  files = sorted(pathlib.Path(path).glob(f'{split}-*.array_record'))
  if not files:
    raise DataError(f'{path}: no {split}-*.array_record in it')
  source = Opened(files)
  if len(source) != count:
    each = ', '.join(
      f'{file.name}: {n}' for file, n in zip(files[:5], source.counts)
    )
    more = ', ...' if len(files) > 5 else ''
    raise DataError(
      f'{path}: {len(files)} shards of {split} hold {len(source)} records, '
      f'{SPEC} promises {count}; a shard is missing ({each}{more})'
    )
  return source


def fetch(source: Sequence[bytes], i: int, name: str) -> dict[str, Any]:
  """Record i of an open split.

  Raises:
    BrokenRecord: its bytes are damaged.
    DataError: it is none of `pack`.
  """
  try:
    data = source[int(i)]
  except BrokenRecord as error:
    raise BrokenRecord(f'{name}: {error}') from error
  return unpack(data, name)


def plain(value: Any) -> Any:
  """Converts a numpy scalar to a Python one, for JSON and msgpack."""
  return value.item() if isinstance(value, np.generic) else value
