"""The interfaces of data: `Source` and `Data`."""

import abc
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from arvision.errors import DataError

Batch = dict[str, Any]
Example = dict[str, Any]


class BrokenImage(DataError):
  """A picture that cannot be decoded. A pipeline may skip it."""


class Source(abc.ABC):
  """Random access to stored pictures, without resizing or shuffling.

  It must be picklable: worker processes of Grain get a copy.
  """

  @property
  @abc.abstractmethod
  def classes(self) -> tuple[str, ...]:
    """Names of the classes, indexed by label."""

  @abc.abstractmethod
  def __len__(self) -> int:
    """Number of pictures."""

  @abc.abstractmethod
  def __getitem__(self, i: int) -> Example:
    """{'image': (H, W, C) uint8 with C = 1 or 3, 'label': int, 'caption': str}.

    Raises:
      BrokenImage: the picture cannot be decoded.
    """

  @property
  def labels(self) -> np.ndarray | None:
    """(n,) int32 labels if they are known without decoding, else None."""
    return None

  @property
  def held_out(self) -> 'Source | None':
    """The held-out split of the data set, None without one."""
    return None

  # Whether pictures may turn out to be broken; not where they are drawn, or lie
  # decoded in memory.
  may_break: ClassVar[bool] = True

  @property
  def place(self) -> str:
    """Where the pictures are, for messages."""
    kind = type(self).__name__
    return str(getattr(self, 'path', '')) or kind

  def name(self, i: int) -> str:
    """The name of picture i, the same on every machine.

    Names decide which pictures are held out. So they must be unique, and should
    not change when other pictures are added or removed.
    """
    return f'{type(self).__name__.lower()}[{i}]'

  def caption_of(self, i: int) -> str:
    """The caption of picture i.

    Raises:
      BrokenImage: only the picture has a caption, and it is broken.
    """
    return self[i]['caption']

  def digest(self) -> str:
    """Hash of all pictures, names and labels, the same on every machine."""
    return hex_digest(self.facts())

  def facts(self) -> Iterator[str | bytes]:
    """The values that `digest` hashes: by default all decoded pictures."""
    yield repr(tuple(self.classes))
    for i in range(len(self)):
      try:
        example = self[i]
      except BrokenImage:
        continue
      image = example['image']
      yield f'{self.name(i)} {example["label"]} {image.shape}'
      yield image.tobytes()


def hex_digest(facts: Iterable[str | bytes]) -> str:
  """A hash of texts and bytes, 32 hex digits."""
  found = hashlib.blake2b(digest_size=16)
  for fact in facts:
    if isinstance(fact, str):
      fact = fact.encode('utf-8', 'surrogateescape')
    found.update(len(fact).to_bytes(8, 'big'))
    found.update(fact)
  return found.hexdigest()


def facts_of_files(
  files: Mapping[str, pathlib.Path],
) -> Iterator[str | bytes]:
  """Facts about files for `hex_digest`, independent of their location.

  Names and sizes, and the contents if the files have at most 1 GiB together.

  Args:
    files: name -> path, in order.
  """
  sizes = {
    name: path.stat().st_size if path.is_file() else -1
    for name, path in files.items()
  }
  whole = sum(sizes.values()) <= 2**30
  for name, size in sizes.items():
    yield f'{name} {size}'
    if whole and size > 0:
      yield files[name].read_bytes()


class Data(Protocol):
  """The data of a run, as the train loop and the evaluators see it.

  Batches are dicts of numpy arrays: `image` (b, H, W, C) float32 in [-1, 1], or
  `tokens` (b, t) int32 or (b, t, c) float32; `label` (b,) int32; `index` (b,)
  int32, the number of the example in its source; `caption` (b,) object array of
  str, which stays on the host. With caption features there are `text`,
  `text_valid` and `weight` too, see `text.Text.batch`. Passes (`held_out`,
  `train_pass`) add `weight` (b,) float32, 0 for padding of the last batch.

  Batch sizes are global. Process p of P gets examples [p b / P, (p + 1) b / P)
  of every global batch, so global batches do not depend on P.
  """

  @property
  def examples(self) -> int:
    """Number of training examples."""

  @property
  def held_out_examples(self) -> int:
    """Number of held-out examples, 0 for none."""

  @property
  def classes(self) -> tuple[str, ...]:
    """Names of the classes."""

  @property
  def num_classes(self) -> int:
    """len(classes)."""

  @property
  def shape(self) -> tuple[int, int, int]:
    """(H, W, C) of the images."""

  def describe(self) -> str:
    """A summary of both splits in one line."""

  def unknown_words(self, caption: str) -> list[str]:
    """Words of a caption that mean nothing to a generator of this data."""

  @property
  def digest(self) -> str:
    """Hash of all examples and their split, the same on every machine."""

  @property
  def broken(self) -> Any:
    """`count` and `files` of pictures that could not be decoded so far."""

  def train(
    self,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
  ) -> Iterator[Batch]:
    """Endless shuffled batches, with exact `get_state` and `set_state`."""

  def held_out(
    self, batch_size: int, process_index: int = 0, process_count: int = 1
  ) -> Iterator[Batch]:
    """One deterministic pass over the held-out split."""

  def train_pass(
    self, batch_size: int, process_index: int = 0, process_count: int = 1
  ) -> Iterator[Batch]:
    """One deterministic pass over the training split."""
