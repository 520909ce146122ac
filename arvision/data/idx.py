"""IDX files: MNIST, Fashion-MNIST, EMNIST, KMNIST."""

import contextlib
import dataclasses
import functools
import gzip
import math
import os
import pathlib
import struct
import zlib

import numpy as np

from arvision.data import files
from arvision.data.base import Example, Source
from arvision.errors import DataError
from arvision.ranges import Names

_UNSIGNED_BYTE = 8
# Largest compression ratio of deflate.
_MOST_DEFLATED = 1032


@dataclasses.dataclass(frozen=True, eq=False)
class Idx(Source):
  """A folder with `train-images-idx3-ubyte` and its companions.

  Attributes:
    folder: folder of the four files, plain or with `.gz`.
    classes: names of the classes, in order of the labels.
    split: 'train' or 't10k'; the latter is the held-out split of the former.
  """

  folder: str
  classes: Names = tuple('0123456789')
  split: str = 'train'
  may_break = False

  @functools.cached_property
  def _arrays(self):
    images, images_file = self._read('images-idx3-ubyte', axes=3)
    labels, labels_file = self._read('labels-idx1-ubyte', axes=1)
    if len(images) != len(labels):
      raise DataError(
        f'{images_file} holds {len(images)} images but {labels_file} '
        f'{len(labels)} labels; get both files anew'
      )
    bad = np.flatnonzero(labels >= len(self.classes))
    if bad.size:
      raise DataError(
        f'{labels_file}: label {labels[bad[0]]} at index {bad[0]}, but '
        f'config.data.source.classes names {len(self.classes)} classes'
      )
    return images[..., None], labels.astype(np.int32)

  def _read(self, ending, axes):
    stem = pathlib.Path(self.folder) / f'{self.split}-{ending}'
    for path in (stem, stem.with_name(stem.name + '.gz')):
      if path.exists():
        return read_idx(path, axes), path
    raise DataError(
      f'{stem}[.gz]: no such file; set config.data.source.folder to the folder '
      'that holds it'
    )

  @property
  def labels(self) -> np.ndarray:
    return self._arrays[1]

  @functools.cached_property
  def held_out(self) -> 'Idx | None':
    if self.split != 'train':
      return None
    other = dataclasses.replace(self, split='t10k')
    found = list(pathlib.Path(self.folder).glob('t10k-images-idx3-ubyte*'))
    return other if found else None

  def name(self, i: int) -> str:
    return f'{self.split}-images[{i}]'

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, i: int) -> Example:
    images, labels = self._arrays
    label = int(labels[i])
    caption = self.classes[label]
    return {'image': images[i], 'label': label, 'caption': caption}


def read_idx(path: pathlib.Path, axes: int) -> np.ndarray:
  """Reads an IDX file of unsigned bytes, gzipped or not.

  Args:
    path: the file.
    axes: wanted number of axes.

  Returns:
    uint8 array with that many axes.

  Raises:
    DataError: not an IDX file of bytes, damaged, or truncated.
  """
  try:
    unpack = gzip.open if path.suffix == '.gz' else contextlib.nullcontext
    with files.open_regular(path) as file, unpack(file) as opened:
      size = os.fstat(file.fileno()).st_size
      shape = _shape(opened.read(4 + 4 * axes), axes, path)
      # Bounds the read by the header and by the size of the file.
      most = min(math.prod(shape), _MOST_DEFLATED * size)
      rest = opened.read(most + 1)
  except (OSError, EOFError, zlib.error, MemoryError) as error:
    raise DataError(f'{path}: cannot be read ({error})') from error
  if len(rest) != math.prod(shape):
    more = ' or more' if len(rest) > math.prod(shape) else ''
    raise DataError(
      f'{path}: the header says {shape}, {math.prod(shape)} bytes, but '
      f'{len(rest)}{more} follow; the file is damaged'
    )
  return np.frombuffer(rest, np.uint8).reshape(shape)


def _shape(head, axes, path):
  if (
    head[:4] != bytes((0, 0, _UNSIGNED_BYTE, axes)) or len(head) < 4 + 4 * axes
  ):
    raise DataError(
      f'{path}: starts with {head[:4].hex(" ")}, wanted 00 00 08 {axes:02x} (an '
      f'IDX file of bytes with {axes} axes)'
    )
  shape = struct.unpack(f'>{axes}I', head[4:])
  if not all(shape):
    raise DataError(f'{path}: the header says {shape}, an empty array')
  return shape
