"""Images in tar files, as WebDataset and img2dataset write them."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from arvision import atomic
from arvision.data import files, shards
from arvision.data.base import BrokenImage, Example, Source, facts_of_files
from arvision.data.decode import (
  MAX_PIXELS,
  MORE_BYTES,
  Pixels,
  check_max_pixels,
  decode,
)
from arvision.data.files import shown
from arvision.errors import DataError
from arvision.parallel import host
from arvision.ranges import Names

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp')
# Longest label, caption and JSON file, in bytes.
_LABEL, _CAPTION, _JSON = 32, 2**16, 2**20
_NONE = (-1, 0)
_FAULTS = (
  OSError,
  tarfile.TarError,
  ValueError,
  EOFError,
  ArithmeticError,
  RecursionError,
  MemoryError,
)
# Increment when the index of a shard changes.
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Sample:
  """The members of a tar file with one key: (offset, bytes) each."""

  key: str
  image: tuple[int, int]
  caption: tuple[int, int] = _NONE
  facts: tuple[int, int] = _NONE


@dataclasses.dataclass(frozen=True, eq=False)
class WebDataset(Source):
  """A folder of uncompressed `.tar` files with an image per sample.

  Files of a sample follow one another and have the same name up to the first
  dot of its last part: an image, and perhaps its label (`.cls`, a number), its
  caption (`.txt`) and further facts (`.json`). Only regular files in a shard
  count; nothing is unpacked to disk. The places of all samples are found once
  and kept in the user's cache folder, so pictures are read at random.

  Attributes:
    path: the folder, or one file.
    files: names of the shards below the folder.
    held_out_files: names of those of the held-out split, '' for none.
    label_key: key of the label in `.json`, where there is no `.cls`; '' for
      none.
    caption_key: key of the caption in `.json`, where there is no `.txt`; '' for
      none.
    class_names: names of the classes by label, () for the numbers.
    extensions: suffixes of images, lower case, with the dot.
    max_pixels: a picture with more is broken; it is not decoded.
  """

  path: str
  files: str = '*.tar'
  held_out_files: str = ''
  label_key: str = 'label'
  caption_key: str = 'caption'
  class_names: tuple[str, ...] = ()
  extensions: Names = EXTENSIONS
  max_pixels: Pixels = MAX_PIXELS

  def __post_init__(self):
    check_max_pixels(self.max_pixels)

  @functools.cached_property
  def _index(self) -> tuple[list[pathlib.Path], list[tuple[int, Sample]], Any]:
    """The shards; (shard, sample) of all samples; and (n,) labels."""
    found = shards.listing(self.path, self.files)
    samples: list[tuple[int, Sample]] = []
    labels: list[int] = []
    options = [self.label_key, *self.extensions]
    for k, file in enumerate(found):
      for sample, label in index_of(file, options):
        samples.append((k, sample))
        labels.append(label)
    if not samples:
      raise DataError(
        f'{shown(self.path)}: no images in {len(found)} shards; wanted files '
        f'that end in {", ".join(self.extensions)} '
        '(config.data.source.extensions)'
      )
    bare = [i for i, label in enumerate(labels) if label < 0]
    if bare and len(bare) < len(labels):
      shard, sample = samples[bare[0]]
      raise DataError(
        f'{shown(found[shard])}: {shown(sample.key)} has no label, but others '
        "have one; add a .cls file, or set config.data.source.label_key='' and "
        'remove the .cls files'
      )
    return found, samples, np.array(labels, np.int32)

  @functools.cached_property
  def classes(self) -> tuple[str, ...]:
    name = shown(pathlib.Path(self.path).stem)
    largest = int(self._index[2].max())
    return shards.class_names(self.class_names, (), largest, name)

  @functools.cached_property
  def labels(self) -> np.ndarray:
    return np.maximum(self._index[2], 0)

  @functools.cached_property
  def held_out(self) -> 'WebDataset | None':
    if not self.held_out_files:
      return None
    return dataclasses.replace(
      self,
      files=self.held_out_files,
      held_out_files='',
      class_names=self.classes,
    )

  def __len__(self) -> int:
    return len(self._index[1])

  def name(self, i: int) -> str:
    shard, sample = self._index[1][i]
    file = shards.relative(self.path, self._index[0][shard])
    return f'{file}/{shown(sample.key)}'

  def facts(self) -> Iterator[str | bytes]:
    yield repr((self.classes, self.label_key, self.caption_key))
    found = self._index[0]
    yield from facts_of_files(
      {shards.relative(self.path, file): file for file in found}
    )

  def caption_of(self, i: int) -> str:
    _, sample = self._index[1][i]
    if sample.caption != _NONE:
      try:
        text = self._read(i, sample.caption, _CAPTION).decode('utf-8-sig')
      except UnicodeDecodeError as error:
        raise DataError(
          f'{self.name(i)}.txt: a caption wants to be a text in UTF-8 ({error})'
        ) from error
    else:
      text = self._json(i, sample).get(self.caption_key)
    if text is None:
      return self.classes[self.labels[i]]
    if not isinstance(text, str) or '\0' in text:
      raise DataError(f'{self.name(i)}: {text!r:.80} is no caption')
    return text.strip()

  def _json(self, i, sample):
    if sample.facts == _NONE or not self.caption_key:
      return {}
    return _json(self._read(i, sample.facts, _JSON), f'{self.name(i)}.json')

  def __getitem__(self, i: int) -> Example:
    i = int(i)
    limit = 8 * self.max_pixels + MORE_BYTES
    try:
      data = self._read(i, self._index[1][i][1].image, limit)
    except DataError as error:
      raise BrokenImage(str(error)) from error
    image = decode(data, self.name(i), max_pixels=self.max_pixels)
    label = int(self.labels[i])
    return {'image': image, 'label': label, 'caption': self.caption_of(i)}

  def _read(self, i, place, limit):
    offset, size = place
    if size > limit:
      raise DataError(f'{self.name(i)}: {size} bytes, wanted at most {limit}')
    try:
      with files.open_regular(self._index[0][self._index[1][i][0]]) as file:
        data = os.pread(file.fileno(), size, offset)
    except OSError as error:
      raise DataError(f'{self.name(i)}: cannot be read ({error})') from error
    if len(data) < size:
      raise DataError(f'{self.name(i)}: the shard is cut off')
    return data


def index_of(
  path: pathlib.Path, options: list[str]
) -> list[tuple[Sample, int]]:
  """The samples of a shard with their labels, -1 without; kept in the cache.

  Args:
    path: the shard.
    options: key of the label in `.json`, and suffixes of images.

  Raises:
    DataError: it cannot be read.
  """
  try:
    status = path.stat()
  except OSError as error:
    raise DataError(f'{shown(path)}: cannot be read ({error})') from error
  facts = [_VERSION, os.fspath(path.absolute()), status.st_size]
  text = json.dumps([*facts, status.st_mtime_ns, *options])
  name = hashlib.sha256(text.encode()).hexdigest()[:24]
  kept = host.cache_folder() / 'webdataset' / f'{name}.json'
  try:
    rows = json.loads(kept.read_bytes())
    return [
      (Sample(key, *map(tuple, places)), int(label))
      for key, *places, label in rows
    ]
  except (OSError, ValueError, TypeError, RecursionError):
    found = [*_samples(path, options)]
  rows = [(*dataclasses.astuple(sample), label) for sample, label in found]
  try:
    with atomic.whole(kept) as new:
      new.write_text(json.dumps(rows))
  except OSError as error:
    logging.warning('%s: its index cannot be kept (%s)', path, error)
  return found


def _samples(path, options) -> Iterator[tuple[Sample, int]]:
  label_key, *extensions = options
  try:
    with (
      files.open_regular(path) as file,
      tarfile.open(fileobj=file, mode='r:', errors='surrogateescape') as tar,
    ):
      key, seen = '', set()
      members: dict[str, tuple[int, int]] = {}
      for member in [*_regular(tar), None]:
        new, ending = _split(member.name) if member else ('', '')
        if new != key or member is None:
          found = _sample(path, file, key, members, extensions, label_key)
          if found is not None:
            if key in seen:
              raise DataError(
                f'{shown(path)}: {shown(key)} comes twice; files of a sample '
                'want to follow one another'
              )
            seen.add(key)
            yield found
          key, members = new, {}
        if member is not None:
          members[ending] = (member.offset_data, member.size)
  except DataError:
    raise
  except _FAULTS as error:
    raise DataError(
      f'{shown(path)}: cannot be read as an uncompressed tar file '
      f'({type(error).__name__}: {error})'
    ) from error


def _regular(tar):
  """The regular files of an open tar file that are no sparse ones."""
  size = os.fstat(tar.fileobj.fileno()).st_size
  for member in tar:
    tar.members = []  # tarfile would keep all of them
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
      continue
    if member.issparse():
      continue
    if member.size < 0 or member.offset_data + member.size > size:
      raise EOFError(f'{shown(member.name)} is cut off')
    yield member


def _split(name):
  """'a/b.c/12.seg.png' -> ('a/b.c/12', '.seg.png')."""
  folder, slash, last = name.rpartition('/')
  stem, dot, ending = last.partition('.')
  return folder + slash + stem, (dot + ending).lower()


def _sample(path, file, key, members, extensions, label_key):
  """(sample, label) of the members of a key, None without an image."""
  image = next((members[e] for e in extensions if e in members), None)
  if image is None or not key:
    return None
  name = f'{shown(path)}: {shown(key)}'
  label: Any = -1
  if '.cls' in members:
    text = _small(file, members['.cls'], _LABEL, f'{name}.cls')
    label = text.decode('ascii', 'replace').strip()
    label = int(label) if label.isdecimal() else label
  elif '.json' in members and label_key:
    text = _small(file, members['.json'], _JSON, f'{name}.json')
    label = _json(text, f'{name}.json').get(label_key)
    label = -1 if label is None else label
  if type(label) is not int or not -1 <= label < 2**31:
    raise DataError(f'{name}: label {label!r:.40}, wanted a number from 0 on')
  more = [members.get(ending, _NONE) for ending in ('.txt', '.json')]
  return Sample(key, image, *more), label


def _small(file, place, limit, name):
  offset, size = place
  if size > limit:
    raise DataError(f'{name}: {size} bytes, wanted at most {limit}')
  return os.pread(file.fileno(), size, offset)


def _json(text, name):
  try:
    found = json.loads(text)
    if not isinstance(found, dict):
      raise ValueError('no object')
  except (ValueError, RecursionError) as error:
    raise DataError(f'{name}: wanted a JSON object ({error})') from error
  return found
