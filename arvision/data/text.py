"""Caption features: stored outputs of a text encoder, or hashed words."""

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

# Largest feature file; 120 x 2048 float32 are 2**20 bytes.
_FEATURE_BYTES = 2**28
# Number of captions of a split that are checked before training.
CAPTIONS = 1000
# Most captions among which a word is looked for.
SEARCHED = 5000


class Text(Checked, abc.ABC):
  """Features of captions: a sequence of vectors per caption.

  Attributes:
    length: vectors per caption in a batch. Shorter sequences are padded on the
      left, longer ones are truncated at the end.
    channels: width of the vectors.
  """

  length: Count
  channels: Width

  @abc.abstractmethod
  def of_example(self, caption: str) -> np.ndarray | None:
    """(n, channels) features of the caption of an example; None without any."""

  def check(self, train: Iterable[str], held_out: Iterable[str]) -> str:
    """Checks before the first batch that captions have features.

    All processes get the same answer. Later checks cannot: a process only sees
    its own part of a batch.

    Args:
      train, held_out: some captions of the two splits.

    Returns:
      a summary in one line, '' for none.

    Raises:
      DataError: none of the training captions has features.
    """
    del train, held_out
    return ''

  @abc.abstractmethod
  def of_caption(self, caption: str) -> np.ndarray:
    """(n, channels) features of a caption from the command line.

    Raises:
      ConfigError: no features are stored for it.
    """

  def unknown(self, caption: str, captions: Iterable[str]) -> list[str]:
    """Words of a caption that mean nothing to a generator.

    Args:
      caption: a caption from the command line.
      captions: captions of the training data, read as far as needed.
    """
    del caption, captions
    return []

  def batch(self, batch: Batch) -> Batch:
    """Adds the features of the captions to a batch.

    Args:
      batch: with `caption` (b,).

    Returns:
      the batch with `text` (b, length, channels) float32, `text_valid`
      (b, length) bool, and `weight` (b,) float32, 0 for captions without
      features.

    Raises:
      DataError: features that cannot be read.
    """
    features = [self.of_example(str(caption)) for caption in batch['caption']]
    found = np.array([f is not None for f in features], np.float32)
    weight = batch.get('weight', np.float32(1)) * found
    return {**batch, **self.pack(features), 'weight': weight}

  def pack(self, features: Sequence[np.ndarray | None]) -> Batch:
    """Pads features (n, channels), or None, to `text` and `text_valid`."""
    text = np.zeros((len(features), self.length, self.channels), np.float32)
    valid = np.zeros((len(features), self.length), bool)
    for i, vectors in enumerate(features):
      if vectors is not None and len(vectors):
        count = min(len(vectors), self.length)
        text[i, -count:] = vectors[:count]
        valid[i, -count:] = True
    return {'text': text, 'text_valid': valid}


@dataclasses.dataclass(frozen=True)
class HashedWords(Text):
  """A fixed random vector for every word, as a bag of words.

  Needs no language model. For trials and for short captions.
  """

  length: Count
  channels: Width

  def of_example(self, caption):
    return self.of_caption(caption)

  def of_caption(self, caption):
    words = _words(caption)
    if not words:
      return np.zeros((0, self.channels), np.float32)
    return np.stack([_word(word, self.channels) for word in words])

  def unknown(self, caption, captions):
    """The words without a training caption: their vectors are noise."""
    left = dict.fromkeys(_words(caption))
    for other in captions:
      for word in _words(other):
        left.pop(word, None)
      if not left:
        break
    return list(left)


def _words(caption):
  return re.findall(r'\w+', caption.lower())


@functools.lru_cache(4096)
def _word(word, channels):
  seed = zlib.crc32(word.encode())
  return np.float32(np.random.RandomState(seed).standard_normal(channels))


@dataclasses.dataclass(frozen=True)
class Stored(Text):
  """Stored outputs of a text encoder, one file per caption.

  LlamaGen uses flan-t5-xl: at most 120 tokens of width 2048.

  Attributes:
    path: folder of .npy files with (n, channels) or (1, n, channels) of any
      float dtype, without padding, named by `file_name`. Examples without a
      file have weight 0.
    length, channels: see `Text`.
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
        'compute them and pass them with --features=FILE.npy'
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
  """The name of the feature file of a caption, for `Stored`.

  Args:
    caption: as in a batch; captions from text files are stripped.

  Returns:
    the SHA-256 of its UTF-8 bytes in 64 hex digits, and '.npy'.
  """
  data = caption.encode('utf-8', 'surrogateescape')
  return f'{hashlib.sha256(data).hexdigest()}.npy'


def read_features(path: str | os.PathLike, channels: int) -> np.ndarray:
  """Reads a .npy file as (n, channels) float32, see `Stored`.

  Raises:
    DataError: not such an array.
  """
  try:
    data = files.read(path, _FEATURE_BYTES)
    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
  except Exception as error:  # a header can hold any Python literal
    raise DataError(f'{path}: not a numpy array ({error})') from error
  shape = array.shape
  array = array[0] if array.ndim == 3 and len(array) == 1 else array
  floats = np.issubdtype(array.dtype, np.floating)
  if array.ndim != 2 or array.shape[1] != channels or not floats:
    raise DataError(
      f'{path}: {array.dtype} {shape}, wanted floats (tokens, {channels}); '
      'config.data.text.channels is the width of the features'
    )
  array = array.astype(np.float32)
  if not np.isfinite(array).all():
    raise DataError(f'{path}: numbers that are not finite')
  return array
