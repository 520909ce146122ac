"""Captions as rows of numbers: what a text encoder made of them, or words."""

import abc
import dataclasses
import functools
import os
import pathlib
import re
import zlib
from collections.abc import Sequence

import numpy as np

from arvision.build import Checked, ConfigError
from arvision.data.base import Batch, DataError
from arvision.ranges import Count, Width


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
  def of_example(self, caption: str, index: int) -> np.ndarray | None:
    """(n, channels) of an example of a source; None where it has none."""

  @abc.abstractmethod
  def of_caption(self, caption: str) -> np.ndarray:
    """(n, channels) of a caption that somebody typed.

    Raises:
      ConfigError: they can only be read from files.
    """

  def batch(self, batch: Batch) -> Batch:
    """A batch with the features of its captions.

    Args:
      batch: with `caption` and `index`, (b,).

    Returns:
      the batch with `text` (b, length, channels) float32, `text_valid`
      (b, length) bool, and `weight` (b,) that is 0 where there are none.

    Raises:
      DataError: features that cannot be read, or a batch for training in which
        no example has any.
    """
    rows = [
      self.of_example(str(caption), int(index))
      for caption, index in zip(batch['caption'], batch['index'])
    ]
    found = np.array([row is not None for row in rows], np.float32)
    if 'weight' not in batch and not found.any():
      raise DataError(
        f'none of the {len(found)} examples of a batch has features of its '
        'caption; look at config.data.text'
      )
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

  def of_example(self, caption, index):
    del index
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
    path: folder of <index>.npy, (n, channels) or (1, n, channels) of any float
      type, without padding; `index` is the number of the example in its source.
      Examples without a file get no weight.
  """

  path: str
  length: Count = 120
  channels: Width = 2048

  def of_example(self, caption, index):
    del caption
    if not self.path:
      raise DataError('config.data.text.path is empty; name a folder of .npy')
    if not pathlib.Path(self.path).is_dir():
      raise DataError(f"config.data.text.path='{self.path}' is no folder")
    path = pathlib.Path(self.path) / f'{index}.npy'
    return read_features(path, self.channels) if path.exists() else None

  def of_caption(self, caption):
    raise ConfigError(
      f"--captions='{caption}': config.data.text reads features of a text "
      'encoder from files; compute them and give them by --features=FILE.npy'
    )


def read_features(path: str | os.PathLike, channels: int) -> np.ndarray:
  """(n, channels) float32 of a .npy file, see `Stored`.

  Raises:
    DataError: not such an array.
  """
  try:
    rows = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
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
