"""What a data source is, and what the train loop and the evals know of data."""

import abc
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from arvision.errors import DataError

Batch = dict[str, Any]
Example = dict[str, Any]


class BrokenImage(DataError):
  """One picture that cannot be decoded. A pipeline may go on without it."""


class Source(abc.ABC):
  """Pictures that can be fetched by number, as they are stored.

  A source neither resizes nor shuffles. It must survive pickling, since the
  worker processes of Grain get a copy. What is not abstract has a default; a
  subclass with more to say overrides it.
  """

  @property
  @abc.abstractmethod
  def classes(self) -> tuple[str, ...]:
    """Names of the classes; a label is an index into them."""

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
    """(n,) int32 where they are known without decoding, else None."""
    return None

  @property
  def held_out(self) -> 'Source | None':
    """The held-out split that the data came with, None without one."""
    return None

  def name(self, i: int) -> str:
    """What picture i is called; the same on every machine.

    Names say which pictures are held out. So no two pictures of a source share
    one, and a picture keeps its own when others come or go, if that can be.
    """
    return f'{type(self).__name__.lower()}[{i}]'

  def caption_of(self, i: int) -> str:
    """The caption of picture i.

    Raises:
      BrokenImage: it cannot be told without the picture, which is broken.
    """
    return self[i]['caption']

  def digest(self) -> str:
    """Hex digits of all pictures, names and labels; equal on every machine."""
    return hex_digest(self.facts())

  def facts(self) -> Iterator[str | bytes]:
    """What `digest` is made of: by default every decoded picture."""
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
  """32 hex digits of texts and bytes, which differ if any of them does."""
  found = hashlib.blake2b(digest_size=16)
  for fact in facts:
    if isinstance(fact, str):
      fact = fact.encode('utf-8', 'surrogateescape')
    found.update(len(fact).to_bytes(8, 'big'))
    found.update(fact)
  return found.hexdigest()


def facts_of_files(
  files: Mapping[str, pathlib.Path], limit: int = 2**30
) -> Iterator[str | bytes]:
  """What `hex_digest` is to know of files, wherever they lie.

  Args:
    files: what a file is called -> where it is, in order.
    limit: up to so many bytes in all, contents count; beyond, names and sizes.
  """
  sizes = {
    name: path.stat().st_size if path.is_file() else -1
    for name, path in files.items()
  }
  whole = sum(sizes.values()) <= limit
  for name, size in sizes.items():
    yield f'{name} {size}'
    if whole and size > 0:
      yield files[name].read_bytes()


class Data(Protocol):
  """A data part, as the train loop and the evals see it.

  Batches are dicts of numpy arrays with leading axis b: `image` (H, W, C)
  float32 in [-1, 1], or `tokens` (t,) int32 or (t, c) float32; `label` int32;
  `index` int32, the number of the example in its source; `caption` (b,) object
  array of str, which stays on the host. With features of captions there are
  `text`, `text_valid` and `weight` too, see `text.Text.batch`. Passes
  (`held_out`, `train_pass`) add `weight` float32, 0 for rows that pad the last
  batch.

  The batch size is always the global one: process p of P gets rows
  [p b / P, (p + 1) b / P) of every global batch, so the batches, put together,
  do not depend on P.
  """

  @property
  def examples(self) -> int:
    """Number of training examples."""

  @property
  def held_out_examples(self) -> int:
    """Number of held-out examples; 0 where there are none."""

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
    """A line for the start of a run: what is in the two splits."""

  @property
  def digest(self) -> str:
    """Hex digits of all examples and their split; equal on every machine."""

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
