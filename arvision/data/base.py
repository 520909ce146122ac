"""What a data source is, and what the train loop and the evals know of data."""

import abc
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

Batch = dict[str, Any]
Example = dict[str, Any]


class DataError(ValueError):
  """Data that cannot be used; the text names the file and what to change."""


class BrokenImage(DataError):
  """One picture that cannot be decoded. A pipeline may go on without it."""


class Source(abc.ABC):
  """Pictures that can be fetched by number, as they are stored.

  A source neither resizes nor shuffles. It must survive pickling, since the
  worker processes of Grain get a copy. `labels`, `held_out` and `name` have
  defaults; a subclass with more to say overrides them.
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
    """What to call picture i in messages; the same on every machine."""
    return f'{type(self).__name__.lower()}[{i}]'


class Data(Protocol):
  """A data part, as the train loop and the evals see it.

  Batches are dicts of numpy arrays with leading axis b: `image` (H, W, C)
  float32 in [-1, 1], or `tokens` (t,) int32 or (t, c) float32; `label` int32;
  `index` int32, the number of the example in its source; `caption` (b,) object
  array of str, which stays on the host. With features of captions there are
  `text`, `text_valid` and `weight` too, see `text.Text.batch`. Passes (`held_out`, `train_pass`) add
  `weight` float32, 0 for rows that pad the last batch.

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
