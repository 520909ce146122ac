"""Images in ArrayRecord shards: source and writer."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import logging

from arvision.data import records
from arvision.data.base import BrokenImage, Example, Source, facts_of_files
from arvision.data.decode import (
  MAX_PIXELS,
  Pixels,
  check_max_pixels,
  decode,
  encode,
)
from arvision.errors import DataError

KIND, VERSION = 'images', 1
# Original names of the pictures: {split: names in order of the records}.
NAMES = 'names.json'


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayRecordImages(Source):
  """A folder written by `write_images`.

  Attributes:
    path: the folder.
    split: 'train' or 'held_out'; the latter is the held-out split of the
      former.
    max_pixels: a picture with more is broken; it is not decoded.
  """

  path: str
  split: str = 'train'
  max_pixels: Pixels = MAX_PIXELS

  def __post_init__(self):
    check_max_pixels(self.max_pixels)

  @functools.cached_property
  def _spec(self):
    spec = records.read_spec(self.path, KIND, VERSION)
    classes, splits = spec.get('classes'), spec.get('splits', {})
    names = isinstance(classes, list) and {type(c) for c in classes} <= {str}
    counts = isinstance(splits, dict) and all(
      type(n) is int and n >= 0 for n in splits.values()
    )
    if not names or not counts or self.split not in (splits or ()):
      raise DataError(
        f'{self.path}/{records.SPEC}: wanted a list of names as `classes`, and '
        f"numbers of pictures as `splits`, with '{self.split}' among them"
      )
    return spec

  @functools.cached_property
  def _records(self):
    return records.open_split(self.path, self.split, len(self))

  @property
  def classes(self) -> tuple[str, ...]:
    return tuple(self._spec['classes'])

  @functools.cached_property
  def held_out(self) -> 'ArrayRecordImages | None':
    if self.split != 'train' or not self._spec['splits'].get('held_out'):
      return None
    return dataclasses.replace(self, split='held_out')

  @functools.cached_property
  def _names(self) -> list[str]:
    return read_names(self.path, self.split, len(self))

  def name(self, i: int) -> str:
    return self._names[i] if self._names else f'{self.split} record {i}'

  def caption_of(self, i: int) -> str:
    return self._record(i)['caption']

  def facts(self) -> Iterator[str | bytes]:
    yield repr(self.classes)
    files = sorted(pathlib.Path(self.path).glob(f'{self.split}-*'))
    yield from facts_of_files({path.name: path for path in files})

  def __len__(self) -> int:
    return self._spec['splits'][self.split]

  def __getitem__(self, i: int) -> Example:
    name = f'{self.path}: {self.name(i)}'
    record = self._record(i)
    kinds = {'image': bytes, 'label': int, 'caption': str}
    for key, kind in kinds.items():
      if type(record.get(key)) is not kind:
        raise DataError(
          f'{name}: {key} is {type(record.get(key)).__name__}, wanted '
          f'{kind.__name__}; write the folder anew'
        )
    image = decode(record['image'], name, max_pixels=self.max_pixels)
    return {**{key: record[key] for key in kinds}, 'image': image}

  def _record(self, i):
    try:
      return records.fetch(self._records, i, f'{self.path}: {self.name(i)}')
    except records.BrokenRecord as error:
      raise BrokenImage(str(error)) from error


def write_images(
  source: Source,
  path: str,
  shards: int = 16,
) -> dict[str, int]:
  """Writes a source, and its held-out split if it has one, as PNG to shards.

  Broken pictures are logged and left out.

  Args:
    source: the source.
    path: a new or empty folder.
    shards: files per split.

  Returns:
    split -> number of pictures written.

  Raises:
    DataError: `path` is not empty.
  """
  names: dict[str, list[str]] = {'train': [], 'held_out': []}

  def all_records() -> Iterator[tuple[str, dict[str, Any]]]:
    for split, part in (('train', source), ('held_out', source.held_out)):
      if part is None:
        continue
      for i in range(len(part)):
        try:
          example = part[i]
        except BrokenImage as error:
          logging.warning('left out: %s', error)
          continue
        names[split].append(part.name(i))
        yield (
          split,
          {
            'image': encode(example['image']),
            'label': int(example['label']),
            'caption': str(example['caption']),
          },
        )

  with records.new_folder(path) as folder:
    counts = records.write_splits(folder, all_records(), shards)
    spec = {
      'kind': KIND,
      'version': VERSION,
      'classes': list(source.classes),
      'splits': counts,
    }
    records.write_spec(folder, spec)
    # Records are written round robin and read shard by shard.
    read = {
      split: [name for k in range(shards) for name in written[k::shards]]
      for split, written in names.items()
    }
    (folder / NAMES).write_text(json.dumps(read))
  return counts


def read_names(path: str, split: str, count: int) -> list[str]:
  """Names of the records of a split; [] for a folder of an older version.

  Raises:
    DataError: the names do not match the records.
  """
  file = pathlib.Path(path) / NAMES
  if not file.exists():
    return []
  try:
    names = json.loads(file.read_text(encoding='utf-8'))[split]
    fits = len(names) == count and all(isinstance(n, str) for n in names)
  except (ValueError, KeyError, TypeError):
    fits = False
  if not fits:
    raise DataError(
      f'{file}: wanted a list of {count} names for {split}; write the folder '
      'anew'
    )
  return names
