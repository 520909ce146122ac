"""Training and held-out splits, and the replacement of broken pictures."""

import contextlib
import dataclasses
import functools
import hashlib
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from absl import logging

from arvision.data.base import BrokenImage, Example, Source
from arvision.data.reads import Reads
from arvision.errors import DataError

# If too many pictures are broken, the error names up to `_NAMED` of them, found
# within `_SECONDS`.
_NAMED, _SECONDS = 100, 20


class Broken:
  """Counts the pictures that could not be decoded, per worker process.

  Attributes:
    files: index in the source -> error message.
    limit: with more broken pictures, `add` raises.
  """

  def __init__(self, limit: float, total: int):
    self.files: dict[int, str] = {}
    self.limit = limit
    self.total = total

  @property
  def count(self) -> int:
    return len(self.files)

  def add(
    self, i: int, message: str, others: Iterable[tuple[int, str]] = ()
  ) -> None:
    """Counts and logs a broken picture, once.

    Args:
      i: its index in the source.
      message: error message.
      others: further broken pictures. They are only iterated if there are too
        many, so that one error names all.

    Raises:
      DataError: there are too many.
    """
    if i in self.files:
      return
    self.files[i] = message
    logging.warning('broken picture, replaced by another: %s', message)
    if self.count > self.limit:
      self.files.update(others)
      named = [self.files[i] for i in sorted(self.files)][:_NAMED]
      rest = self.count - len(named)
      raise DataError(
        '\n  '.join(
          [
            f'{self.count} of {self.total} pictures are broken, more than '
            'config.data.broken_share allows. Repair or delete the files, or '
            'raise it:',
            *named,
            *([f'and {rest} more'] if rest else []),
          ]
        )
      )


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Some examples of a source, loaded and prepared.

  Attributes:
    source: the source.
    numbers: (n,) sorted indices into the source.
    classes: number of classes; 0 = labels are not used.
    prepare: (image, name) -> image, the deterministic part of the preparation.
    broken: counter of broken pictures.
    cache: keep all prepared pictures in memory.
    reads: what is being read.
  """

  source: Source
  numbers: np.ndarray
  classes: int
  prepare: Callable[[np.ndarray, str], np.ndarray]
  broken: Broken
  cache: bool = False
  reads: Reads = dataclasses.field(default_factory=Reads)

  def __len__(self) -> int:
    return len(self.numbers)

  def name(self, i: int) -> str:
    """The name of picture i of the source."""
    return self.source.name(i)

  @functools.cached_property
  def _kept(self):
    return [self._fetch(rank) for rank in range(len(self))]

  @property
  def labels(self) -> np.ndarray:
    """(n,) labels of all ranks; decodes the pictures where it must."""
    known = self.source.labels
    if not self.classes:
      return np.zeros(len(self), np.int32)
    if known is not None:
      return np.asarray(known)[self.numbers]
    return np.array([self.load(i)['label'] for i in range(len(self))])

  def check_labels(self) -> None:
    """Checks all labels, if they are known without decoding.

    So every process fails at the start, instead of one of them later.

    Raises:
      DataError: a label without a class.
    """
    if self.classes and self.source.labels is not None:
      labels = np.asarray(self.source.labels)[self.numbers]
      bad = (labels < 0) | (labels >= self.classes)
      for i in self.numbers[bad][:1]:
        self._check_label(self.source.name(int(i)), labels[bad][0])

  def warm(self) -> None:
    """Loads one example, or all of them with `cache`, before threads start."""
    if len(self):
      self.load(0)

  def captions(self, count: int) -> Iterator[str]:
    """The captions of at most `count` evenly spaced examples."""
    for rank in spaced(len(self), count):
      with contextlib.suppress(BrokenImage):
        yield self.source.caption_of(int(self.numbers[rank]))

  def shapes(self, count: int) -> Iterator[tuple[int, ...]]:
    """The (h, w, C) of at most `count` evenly spaced pictures of the source."""
    for rank in spaced(len(self), count):
      # Whoever reads them for training says what is wrong with them.
      with contextlib.suppress(DataError):
        yield self.source[int(self.numbers[rank])]['image'].shape

  def empty_classes(self) -> list[str]:
    """Names of classes without an example, if labels are known."""
    labels = self.source.labels
    if labels is None:
      return []
    found = np.unique(labels[self.numbers])
    lost = np.setdiff1d(np.arange(self.classes), found)
    return [self.source.classes[label] for label in lost]

  def load(self, rank: int) -> Example:
    """The example at a rank, or the next one that is not broken.

    Returns:
      {'image', 'label', 'caption', 'index', 'whole'}: `index` is that of the
      returned picture; `whole` is False if it replaces a broken one.

    Raises:
      DataError: too many broken pictures, or a label without a class.
    """
    return self._kept[rank] if self.cache else self._fetch(rank)

  def _fetch(self, rank):
    for step in range(len(self)):
      i = int(self.numbers[(rank + step) % len(self)])
      if i in self.broken.files:
        continue
      try:
        return self._checked(i, step == 0)
      except BrokenImage as error:
        self.broken.add(i, str(error), self._others_broken())
    raise DataError(f'none of {len(self)} pictures can be decoded')

  def _others_broken(self):
    """(index, error message) of broken pictures that are not counted yet."""
    start = time.monotonic()
    for i in map(int, self.numbers):
      if time.monotonic() - start > _SECONDS:
        logging.warning('not all pictures were checked within %d s', _SECONDS)
        return
      if i not in self.broken.files:
        try:
          with self.reads.of(i):
            self.source[i]
        except BrokenImage as error:
          yield i, str(error)
        except DataError:
          pass  # other faults are raised when the picture is loaded

  def look(self, i: int) -> str:
    """Why picture i of the source is broken, '' if it is not.

    Nothing is counted.

    Raises:
      DataError: see `load`.
    """
    try:
      self._checked(i, True)
    except BrokenImage as error:
      return str(error)
    return ''

  def _checked(self, i, whole):
    with self.reads.of(i):
      example = self.source[i]
    name = self.source.name(i)
    label = example['label'] if self.classes else 0
    self._check_label(name, label)
    return {
      'image': self.prepare(example['image'], name),
      'label': label,
      'caption': example['caption'],
      'index': i,
      'whole': whole,
    }

  def _check_label(self, name, label):
    if not 0 <= label < max(self.classes, 1):
      raise DataError(
        f'{name}: label {label}, but there are {self.classes} classes; change '
        'config.data.source, or set config.data.conditional=False'
      )


def spaced(total: int, count: int) -> range:
  """At most `count` of the numbers below `total`, evenly spaced."""
  return range(0, total, -(-total // count) or 1)


def hold_out(source: Source, share: float) -> tuple[np.ndarray, np.ndarray]:
  """Splits a source into training and held-out examples.

  An example is held out if the hash of its name is below the share. So it stays
  in its split when others are added, removed or reordered, and a larger share
  holds out a superset. The actual shares, overall and per class, vary.

  Args:
    source: the source.
    share: share of examples to hold out, in [0, 1).

  Returns:
    (training, held-out) sorted indices.

  Raises:
    DataError: the share is not 0, but no example is held out.
  """
  count = len(source)
  chosen = np.zeros(count, bool)
  for i in range(count if share else 0):
    chosen[i] = _chance(source.name(i)) < share
  if share and not chosen.any():
    raise DataError(
      f'config.data.held_out_share={share} of {count} examples holds out none '
      '(the hash of a name decides); raise it, or set it to 0'
    )
  return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _chance(name):
  """The hash of a name as a number in [0, 1).

  Normalizes Unicode: file systems store accents composed or decomposed.
  """
  text = unicodedata.normalize('NFC', name)
  digest = hashlib.blake2b(
    text.encode('utf-8', 'surrogateescape'), digest_size=8
  )
  return int.from_bytes(digest.digest(), 'big') / 2**64
