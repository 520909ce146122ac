"""Image shards in ArrayRecord form, and their writer."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import logging

from arvision.data import records
from arvision.data.base import BrokenImage, Example, Source, facts_of_files
from arvision.data.decode import decode, encode

KIND, VERSION = 'images', 1


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayRecordImages(Source):
  """A folder written by `write_images`.

  Attributes:
    path: the folder.
    split: 'train', or 'held_out', which is the held-out split of 'train'.
  """

  path: str
  split: str = 'train'

  @functools.cached_property
  def _spec(self):
    return records.read_spec(self.path, KIND, VERSION)

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

  def name(self, i: int) -> str:
    return f'{self.split} record {i}'

  def caption(self, i: int) -> str:
    return self._record(i)['caption']

  def facts(self) -> Iterator[str | bytes]:
    yield repr(self.classes)
    files = sorted(pathlib.Path(self.path).glob(f'{self.split}-*'))
    yield from facts_of_files({path.name: path for path in files})

  def __len__(self) -> int:
    return self._spec['splits'][self.split]

  def __getitem__(self, i: int) -> Example:
    record = self._record(i)
    return {
      'image': decode(record['image'], f'{self.path}: {self.name(i)}'),
      'label': record['label'],
      'caption': record['caption'],
    }

  def _record(self, i):
    return records.fetch(self._records, i, f'{self.path}: {self.name(i)}')


def write_images(
  source: Source,
  path: str,
  shards: int = 16,
  format: str = 'png',
  quality: int = 95,
) -> dict[str, int]:
  """Writes a source, with its own held-out split if it has one, to shards.

  Pictures that cannot be decoded are named in the log and left out.

  Args:
    source: what to write.
    path: a new or empty folder.
    shards: files per split.
    format: 'png', exact, or 'jpeg'.
    quality: of JPEG, 1 to 95.

  Returns:
    split -> number of pictures written.

  Raises:
    DataError: `path` is not empty.
  """
  if format not in ('png', 'jpeg'):
    raise ValueError(f"format='{format}': wanted 'png' or 'jpeg'")

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
        data = encode(example['image'], format, quality)
        yield (
          split,
          {
            'image': data,
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
  return counts
