"""Captions as rows of numbers: what a text encoder made of them, or words."""

import abc
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from arvision.build import Checked
from arvision.data import files
from arvision.data.base import Batch
from arvision.errors import ConfigError, DataError
from arvision.ranges import Count, Width

# Of the features of one caption: 120 x 2048 in float32 are 2**20 bytes.
_FEATURE_BYTES = 2**28
# As many captions of a split are looked at before training.
CAPTIONS = 1000


class Text(Checked, abc.ABC):
  """Features of captions, `length` rows of `channels` numbers at most.

  Attributes:
    length: rows that a batch has for every caption. Shorter captions are
      padded on the left, longer ones lose their end.
    channels: numbers of a row.
  """

  length: Count
  channels: Width

  @abc.abstractmethod
  def of_example(self, caption: str) -> np.ndarray | None:
    """(n, channels) of an example of a source; None where it has none."""

  def check(self, train: Iterable[str], held_out: Iterable[str]) -> str:
    """Refuses training examples without features.

    Every process asks this before the first batch and gets the same answer.
    Later nobody can: a process sees only its own rows of a batch.

    Args:
      train, held_out: captions from all over the two splits.

    Returns:
      what to say at the start of a run, '' for nothing.

    Raises:
      DataError: none of the training captions has features.
    """
    del train, held_out
    return ''

  @abc.abstractmethod
  def of_caption(self, caption: str) -> np.ndarray:
    """(n, channels) of a caption that somebody typed.

    Raises:
      ConfigError: they can only be read from files.
    """

  def batch(self, batch: Batch) -> Batch:
    """A batch with the features of its captions.

    Args:
      batch: with `caption` (b,).

    Returns:
      the batch with `text` (b, length, channels) float32, `text_valid`
      (b, length) bool, and `weight` (b,) that is 0 where there are none.

    Raises:
      DataError: features that cannot be read.
    """
    rows = [self.of_example(str(caption)) for caption in batch['caption']]
    found = np.array([row is not None for row in rows], np.float32)
    weight = batch.get('weight', np.float32(1)) * found
    return {**batch, **self.pack(rows), 'weight': weight}

  def pack(self, rows: Sequence[np.ndarray | None]) -> Batch:
    """`text` and `text_valid` of captions (n, channels) each, or of nothing."""
    text = np.zeros((len(rows), self.length, self.channels), np.float32)
    valid = np.zeros((len(rows), self.length), bool)
    for i, row in enumerate(rows):
      if row is not None and len(row):
        count = min(len(row), self.length)
        text[i, -count:] = row[:count]
        valid[i, -count:] = True
    return {'text': text, 'text_valid': valid}


@dataclasses.dataclass(frozen=True)
class HashedWords(Text):
  """A vector of random numbers for every word, fixed by its letters.

  Needs no language model: words that are often seen in training get a meaning
  there, in the order-blind way of a bag of words. For trials and for captions
  of few words.
  """

  length: Count
  channels: Width

  def of_example(self, caption):
    return self.of_caption(caption)

  def of_caption(self, caption):
    words = re.findall(r'\w+', caption.lower())
    if not words:
      return np.zeros((0, self.channels), np.float32)
    return np.stack([_word(word, self.channels) for word in words])


@functools.lru_cache(4096)
def _word(word, channels):
  seed = zlib.crc32(word.encode())
  return np.float32(np.random.RandomState(seed).standard_normal(channels))


@dataclasses.dataclass(frozen=True)
class Stored(Text):
  """What a text encoder made of every caption, one file for each.

  LlamaGen was trained on features of flan-t5-xl, 2048 numbers for each of at
  most 120 tokens.

  Attributes:
    path: folder of files (n, channels) or (1, n, channels) of any float type,
      without padding. `file_name` says what the file of a caption is called.
      Examples without a file get no weight.
  """

  path: str
  length: Count = 120
  channels: Width = 2048

  def of_example(self, caption):
    path = pathlib.Path(self.path) / file_name(caption)
    return read_features(path, self.channels) if path.exists() else None

  def of_caption(self, caption):
    found = self.of_example(caption)
    if found is None:
      raise ConfigError(
        f"--captions='{caption}': config.data.text has no features of it; "
        'compute them and give them by --features=FILE.npy'
      )
    return found

  def check(self, train, held_out):
    if not self.path:
      raise DataError('config.data.text.path is empty; name a folder of .npy')
    folder = pathlib.Path(self.path)
    if not folder.is_dir():
      raise DataError(f"config.data.text.path='{folder}' is no folder")
    for entry in os.scandir(folder):
      if re.fullmatch(r'\d+\.npy', entry.name):
        raise DataError(
          f"config.data.text.path='{folder}': {entry.name} is named by the "
          f'number of a picture, which changes when pictures are added; {_HOW}'
        )
    train, held_out = list(train), list(held_out)
    has = lambda caption: (folder / file_name(caption)).exists()
    found = sum(map(has, train))
    if not found:
      some = f": {file_name(train[0])} for '{train[0]}'" if train else ''
      raise DataError(
        f"config.data.text.path='{folder}': none of {len(train)} training "
        f'captions has features; {_HOW}{some}'
      )
    return (
      f'features of {found} of {len(train)} training captions and of '
      f'{sum(map(has, held_out))} of {len(held_out)} held-out captions'
    )


_HOW = (
  'name every file by its caption, data.text.file_name(caption): the SHA-256 of '
  'its UTF-8 bytes in 64 hex digits, and .npy'
)


def file_name(caption: str) -> str:
  """What the features of a caption are called in the folder of `Stored`.

  Args:
    caption: as a batch has it; that of a text file is stripped of blanks at its
      ends.

  Returns:
    the SHA-256 of its UTF-8 bytes in 64 hex digits, and '.npy'.
  """
  data = caption.encode('utf-8', 'surrogateescape')
  return f'{hashlib.sha256(data).hexdigest()}.npy'


def read_features(path: str | os.PathLike, channels: int) -> np.ndarray:
  """(n, channels) float32 of a .npy file, see `Stored`.

  Raises:
    DataError: not such an array.
  """
  try:
    data = files.read(path, _FEATURE_BYTES)
    rows = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
  except Exception as error:  # headers can hold any literal of Python
    raise DataError(f'{path}: not an array of numpy ({error})') from error
  shape = rows.shape
  rows = rows[0] if rows.ndim == 3 and len(rows) == 1 else rows
  floats = np.issubdtype(rows.dtype, np.floating)
  if rows.ndim != 2 or rows.shape[1] != channels or not floats:
    raise DataError(
      f'{path}: {rows.dtype} {shape}, wanted floats (tokens, {channels}); '
      'config.data.text.channels says how wide features are'
    )
  rows = rows.astype(np.float32)
  if not np.isfinite(rows).all():
    raise DataError(f'{path}: numbers that are not finite')
  return rows
