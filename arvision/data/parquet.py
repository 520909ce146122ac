"""Images in Parquet files, as Hugging Face `datasets` stores them."""

import bisect
import collections
import contextlib
import dataclasses
import functools
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from arvision.data import files, shards
from arvision.data.base import BrokenImage, Example, Source, facts_of_files
from arvision.data.decode import MAX_PIXELS, Pixels, check_max_pixels, decode
from arvision.errors import DataError
from arvision.ranges import Natural

# Largest row group that is read, in bytes before compression.
_LARGEST = 2**32
_FAULTS = (pyarrow.ArrowException, OSError, ValueError, LookupError)


class Recent:
  """The row groups that were read last, up to a number of bytes.

  It is empty again in the process that gets a pickled copy.
  """

  def __init__(self, limit: int):
    self._limit = limit
    self._lock = threading.Lock()
    self._kept: collections.OrderedDict[Any, Any] = collections.OrderedDict()
    self._size = 0

  def __reduce__(self):
    return type(self), (self._limit,)

  def get(self, key: Any) -> Any:
    """The table of a row group, None where it is not kept."""
    with self._lock:
      if key in self._kept:
        self._kept.move_to_end(key)
      return self._kept.get(key)

  def put(self, key: Any, table: Any) -> None:
    """Keeps a table, and removes the ones used longest ago."""
    with self._lock:
      if key in self._kept:
        return
      self._kept[key] = table
      self._size += table.nbytes
      while self._size > self._limit and self._kept:
        self._size -= self._kept.popitem(last=False)[1].nbytes


@dataclasses.dataclass(frozen=True, eq=False)
class Parquet(Source):
  """A folder of `.parquet` files with a column of encoded images.

  An image is bytes, or a struct with `bytes` (an image of Hugging Face
  `datasets`); a struct that only has a `path` is broken, since paths in files
  are not followed. Labels are numbers, or texts, whose sorted values are the
  classes. Names of classes come from `class_names`, or from the features that
  `datasets` stores.

  A read costs a whole row group. `keep_mb` of them are kept in memory, so small
  data sets are read once; large ones want row groups of a few pictures
  (`row_group_size=16` of the writer), or `data.arrayrecord.write_images`.

  Attributes:
    path: the folder, or one file.
    files: names of the files below the folder.
    held_out_files: names of those of the held-out split, '' for none.
    image: column of the images.
    label: column of the labels, '' for one class.
    caption: column of the captions, a text or a list of texts, of which the
      first counts; '' for the names of the classes.
    class_names: names of the classes by label, () for those in the files.
    keep_mb: MiB of row groups to keep in memory, in each process.
    max_pixels: a picture with more is broken; it is not decoded.
  """

  path: str
  files: str = '*.parquet'
  held_out_files: str = ''
  image: str = 'image'
  label: str = 'label'
  caption: str = ''
  class_names: tuple[str, ...] = ()
  keep_mb: Natural = 1024
  max_pixels: Pixels = MAX_PIXELS

  def __post_init__(self):
    check_max_pixels(self.max_pixels)

  @functools.cached_property
  def _recent(self) -> Recent:
    return Recent(self.keep_mb * 2**20)

  @functools.cached_property
  def _files(self) -> list[tuple[pathlib.Path, Any]]:
    """(file, its metadata) of all files."""
    found = []
    for file in shards.listing(self.path, self.files):
      with self._opened(file) as opened:
        found.append((file, opened.metadata))
        columns = opened.schema_arrow.names
      for key in ('image', 'label', 'caption'):
        name = getattr(self, key)
        if name and name not in columns:
          raise DataError(
            f"{file}: no column '{name}'; set config.data.source.{key} to one "
            f'of {", ".join(columns)}'
          )
    return found

  @functools.cached_property
  def _groups(self) -> tuple[list[tuple[int, int, int]], list[int]]:
    """(file, row group, its first row in the file), and their first indices."""
    groups: list[tuple[int, int, int]] = []
    starts: list[int] = []
    index = 0
    for k, (_, metadata) in enumerate(self._files):
      row = 0
      for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        if count:
          groups.append((k, group, row))
          starts.append(index)
        row, index = row + count, index + count
    return groups, starts

  def __len__(self) -> int:
    return sum(metadata.num_rows for _, metadata in self._files)

  @contextlib.contextmanager
  def _opened(self, file, metadata=None) -> Iterator[Any]:
    """An open file; turns errors of its reader into DataError."""
    try:
      with files.open_regular(file) as data:
        yield pyarrow.parquet.ParquetFile(data, metadata=metadata)
    except DataError:
      raise
    except _FAULTS as error:
      text = ' '.join(str(error).split())[:200]
      raise DataError(
        f'{file}: cannot be read as Parquet ({type(error).__name__}: {text})'
      ) from error

  @functools.cached_property
  def _labels(self) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes, and (n,) labels."""
    name = pathlib.Path(self.path).stem
    if not self.label:
      labels = np.zeros(len(self), np.int32)
      return shards.class_names(self.class_names, (), -1, name), labels
    columns = []
    for file, metadata in self._files:
      with self._opened(file, metadata) as opened:
        column = opened.read(columns=[self.label]).column(self.label)
        if column.null_count:
          raise DataError(
            f"{file}: {column.null_count} rows have no '{self.label}'; set "
            "config.data.source.label='' for one class"
          )
        columns.append(column.to_pylist())
    values = [value for column in columns for value in column]
    if all(type(value) is str for value in values):
      names = self.class_names or tuple(sorted(set(values)))
      if lost := sorted({*values} - {*names}):
        raise DataError(
          f'{self.path}: config.data.source.class_names lacks {lost[0]!r}'
        )
      number = {name: i for i, name in enumerate(names)}
      return names, np.array([number[value] for value in values], np.int32)
    odd = [value for value in values if type(value) is not int or value < 0]
    if odd:
      raise DataError(
        f"{self.path}: '{self.label}' holds {odd[0]!r}, wanted numbers of "
        'classes, or names'
      )
    names = shards.class_names(
      self.class_names, self._stored_names(), max(values, default=-1), name
    )
    return names, np.array(values, np.int32)

  def _stored_names(self):
    """The names that `datasets` stores in a file, () without."""
    metadata = self._files[0][1].metadata or {}
    try:
      info = json.loads(metadata[b'huggingface'])['info']
      names = info['features'][self.label]['names']
      return tuple(map(str, names)) if isinstance(names, list) else ()
    except (ValueError, LookupError, TypeError, RecursionError):
      return ()

  @property
  def classes(self) -> tuple[str, ...]:
    return self._labels[0]

  @property
  def labels(self) -> np.ndarray:
    return self._labels[1]

  @functools.cached_property
  def held_out(self) -> 'Parquet | None':
    if not self.held_out_files:
      return None
    other = dataclasses.replace(
      self, files=self.held_out_files, held_out_files=''
    )
    if self.label and not self.class_names and other.classes != self.classes:
      # Some classes may have no held-out picture.
      other = dataclasses.replace(other, class_names=self.classes)
    return other

  def _place(self, i):
    """(file, row group, row of it, row of the file) of picture i."""
    groups, starts = self._groups
    at = bisect.bisect_right(starts, i) - 1
    file, group, first = groups[at]
    return file, group, i - starts[at], first + i - starts[at]

  def name(self, i: int) -> str:
    file, _, _, row = self._place(i)
    return f'{shards.relative(self.path, self._files[file][0])}[{row}]'

  def facts(self) -> Iterator[str | bytes]:
    yield repr((self.classes, self.image, self.label, self.caption))
    yield from facts_of_files(
      {shards.relative(self.path, file): file for file, _ in self._files}
    )

  def _table(self, file, group):
    """The columns of the images and captions of a row group."""
    table = self._recent.get((file, group))
    if table is None:
      path, metadata = self._files[file]
      size = metadata.row_group(group).total_byte_size
      if size > _LARGEST:
        raise DataError(
          f'{path}: row group {group} has {size} bytes, wanted at most '
          f'{_LARGEST}; write it with a smaller row_group_size'
        )
      columns = [self.image, *([self.caption] if self.caption else [])]
      with self._opened(path, metadata) as opened:
        table = opened.read_row_group(group, columns=columns)
      self._recent.put((file, group), table)
    return table

  def caption_of(self, i: int) -> str:
    text = None
    if self.caption:
      file, group, row, _ = self._place(i)
      text = self._table(file, group).column(self.caption)[row].as_py()
      if isinstance(text, list):
        text = text[0] if text else None
      if text is not None and not isinstance(text, str):
        raise DataError(
          f'{self.name(i)}: {self.caption} is {type(text).__name__}, wanted a '
          'text'
        )
    return self.classes[self.labels[i]] if text is None else text.strip()

  def __getitem__(self, i: int) -> Example:
    i = int(i)
    file, group, row, _ = self._place(i)
    value = self._table(file, group).column(self.image)[row].as_py()
    if isinstance(value, dict):
      value = value.get('bytes')
      if value is None:
        raise BrokenImage(
          f'{self.name(i)}: {self.image} has no bytes; paths in files are not '
          'followed'
        )
    if not isinstance(value, bytes):
      raise BrokenImage(
        f'{self.name(i)}: {self.image} is {type(value).__name__}, wanted the '
        'bytes of an encoded picture'
      )
    image = decode(value, self.name(i), max_pixels=self.max_pixels)
    label = int(self.labels[i])
    return {'image': image, 'label': label, 'caption': self.caption_of(i)}
