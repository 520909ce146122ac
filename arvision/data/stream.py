"""The order of examples, and iterators over batches with exact resume.

Batch k of a stream is a function of (seed, k) alone. So the state of an
iterator is k, independent of threads, workers and processes, and the points at
which the batch size changed.

Grain's `shuffle` and `repeat` work per example and cost about 30 us each, more
than the preparation of a digit. Here Grain maps, slices and prefetches whole
batches.
"""

import abc
import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import grain
import numpy as np
from absl import flags as absl_flags

from arvision.build import Checked
from arvision.data.base import Batch
from arvision.data.companions import Companions
from arvision.data.text import CAPTIONS, SEARCHED, Text
from arvision.errors import ConfigError, DataError
from arvision.ranges import FewOr0


class Order:
  """The endless order of training examples, reshuffled every epoch."""

  def __init__(self, examples: int, seed: int):
    self.examples = examples
    self.seed = seed
    # Caches the permutations of the few epochs that recent batches touch.
    self._epochs: dict[int, np.ndarray] = {}

  def __call__(self, positions: np.ndarray) -> np.ndarray:
    """(b,) int64 positions in the stream -> (b,) ranks of examples."""
    epochs, offsets = np.divmod(positions, self.examples)
    ranks = np.empty_like(offsets)
    for epoch in np.unique(epochs):
      here = epochs == epoch
      ranks[here] = self._permutation(int(epoch))[offsets[here]]
    return ranks

  def _permutation(self, epoch):
    order = self._epochs.get(epoch)
    if order is None:
      rng = np.random.default_rng((self.seed, epoch))
      order = rng.permutation(self.examples)
      # A new dict: other threads may be reading the old one.
      near = {e: o for e, o in self._epochs.items() if abs(e - epoch) < 3}
      self._epochs = {**near, epoch: order}
    return order

  def __getstate__(self):
    return {'examples': self.examples, 'seed': self.seed, '_epochs': {}}


@dataclasses.dataclass(frozen=True)
class Reading(Checked):
  """How batches are prefetched.

  Attributes:
    threads: batches prepared concurrently in a process; 0 for no prefetching.
      Up to 2 x threads batches are in memory.
    workers: processes that prepare batches, each with `threads` threads; 0 for
      this process.
  """

  threads: FewOr0 = 2
  workers: FewOr0 = 0

  def start(self, batches: grain.MapDataset) -> grain.DatasetIterator:
    """Starts an iterator with these threads and workers."""
    ahead = 2 * self.threads
    options = grain.ReadOptions(self.threads, max(1, ahead))
    data = batches.to_iter_dataset(options)
    if self.workers:
      # Grain reads an absl flag, which scripts and notebooks do not parse.
      absl_flags.FLAGS.mark_as_parsed()
      workers = grain.multiprocessing.MultiprocessingOptions(self.workers)
      data = data.mp_prefetch(workers)
    return iter(data)


def part_of_process(
  batch_size: int, process_index: int, process_count: int
) -> slice:
  """The part of every global batch that a process makes.

  Raises:
    ConfigError: the processes do not divide the batch.
  """
  if batch_size < 1 or batch_size % process_count:
    raise ConfigError(
      f'config.data.batch_size={batch_size} cannot be divided among '
      f'{process_count} processes; make it a multiple of {process_count}'
    )
  local = batch_size // process_count
  return slice(process_index * local, (process_index + 1) * local)


def changes(
  state: Mapping[str, Any], batch_size: int
) -> tuple[tuple[int, int], ...]:
  """Points (batches so far, examples so far) at which the batch size changed.

  Args:
    state: state of a `TrainIterator`.
    batch_size: the new batch size; if it differs from that of the state, the
      state's position is a further point.
  """
  points = tuple((int(k), int(n)) for k, n in state.get('changes', ()))
  first, examples = points[-1] if points else (0, 0)
  k, before = state['next_batch'], state['batch_size']
  if before == batch_size:
    return points
  now = k, examples + (k - first) * before
  # Drops a size that made no batch.
  return (*(p for p in points if p[0] < k), now) if k else ()


class TrainIterator(grain.DatasetIterator):
  """Batches of a stream, with the state interface of Grain's checkpoints.

  The state is {'next_batch': k, 'changes': ..., **facts}, see `changes`. From a
  state of another batch size it continues at the next example: none is skipped
  and none repeats.
  """

  def __init__(
    self,
    make: Callable[[int], grain.MapDataset],
    reading: Reading,
    facts: dict[str, Any],
  ):
    """Starts at the first batch.

    Args:
      make: shift -> batches, where batch k starts at position
        k * batch_size + shift of the stream.
      reading: threads and workers.
      facts: `batch_size`, and values that determine the order of examples; they
        must equal those of a restored state.
    """
    super().__init__()
    self._make = make
    self._reading = reading
    self._facts = facts
    self._next = 0
    self._changes: tuple[tuple[int, int], ...] = ()
    self._running: grain.DatasetIterator | None = None

  def __next__(self) -> Batch:
    self.start_prefetch()
    assert self._running is not None
    batch = next(self._running)
    self._next += 1
    return batch

  def start_prefetch(self) -> None:
    """Starts threads and workers now instead of on the first `next`."""
    if self._running is None:
      first, examples = self._changes[-1] if self._changes else (0, 0)
      batches = self._make(examples - first * self._facts['batch_size'])
      self._running = self._reading.start(batches[self._next :])
      self._running.start_prefetch()

  def get_state(self) -> dict[str, Any]:
    return {'next_batch': self._next, 'changes': self._changes, **self._facts}

  def set_state(self, state: dict[str, Any]) -> None:
    """Continues from a state.

    Raises:
      DataError: the state belongs to another order of examples.
    """
    for key, value in self._facts.items():
      if key != 'batch_size' and state.get(key) != value:
        raise DataError(
          f'the checkpoint was made with {key}={state.get(key)}, this run has '
          f'{key}={value}: the order of examples would change in the middle. '
          f'Set it back in the config, or start in a new workdir'
        )
    self.close()
    self._next = state['next_batch']
    self._changes = changes(state, self._facts['batch_size'])

  def close(self) -> None:
    """Stops threads and workers."""
    if self._running is not None:
      self._running.close()
      self._running = None


def train_stream(
  examples: int,
  batch_size: int,
  seed: int,
  assemble: Callable[[np.ndarray, np.ndarray], Batch],
  draws: int,
  reading: Reading,
  process_index: int = 0,
  process_count: int = 1,
) -> TrainIterator:
  """Endless shuffled batches.

  Args:
    examples: number of training examples.
    batch_size: global.
    seed: seed of the order and of the uniform numbers.
    assemble: (ranks (b,), uniform numbers (b, draws)) -> batch.
    draws: uniform numbers per example and visit.
    reading: threads and workers.
    process_index, process_count: this process among all.

  Raises:
    ConfigError: processes do not divide the batch, or there are fewer examples
      than one batch needs.
  """
  part = part_of_process(batch_size, process_index, process_count)
  if examples < batch_size:
    raise ConfigError(
      f'config.data.batch_size={batch_size}, but the training split has only '
      f'{examples} examples; make it smaller, or hold out less'
    )
  order = Order(examples, seed)

  def batches(shift):
    def batch(k, rng):
      first = k * batch_size + shift
      ranks = order(np.arange(first, first + batch_size)[part])
      return assemble(ranks, rng.random((batch_size, draws))[part])

    count = (sys.maxsize - max(shift, 0)) // batch_size - 1
    return grain.MapDataset.range(count).seed(seed).random_map(batch)

  facts = {'seed': seed, 'batch_size': batch_size, 'examples': examples}
  return TrainIterator(batches, reading, facts)


def one_pass(
  examples: int,
  batch_size: int,
  assemble: Callable[[np.ndarray, np.ndarray], Batch],
  reading: Reading,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Every example once, in order; the last batch is padded.

  Args:
    examples: number of examples.
    batch_size: global; every process gets the same number of batches.
    assemble: (ranks (b,), weight (b,) float32) -> batch. Padding repeats the
      last example with weight 0.
    reading: threads and workers.
    process_index, process_count: this process among all.

  Raises:
    ConfigError: processes do not divide the batch.
  """
  part = part_of_process(batch_size, process_index, process_count)

  def batch(k):
    positions = np.arange(k * batch_size, (k + 1) * batch_size)[part]
    weight = (positions < examples).astype(np.float32)
    return assemble(np.minimum(positions, examples - 1), weight)

  return reading.start(
    grain.MapDataset.range(-(-examples // batch_size)).map(batch)
  )


class Batches(Checked, abc.ABC):
  """Training batches and passes over two splits, see `base.Data`.

  A split has a length, `labels`, `reads`, and the methods `warm`, `captions` and
  `name`.

  Attributes:
    threads, workers: see `Reading`.
    companions: further examples of its class that come with every example of
      training and of the held-out pass, see `data.companions`.
    text: adds caption features to batches; None for none.
    draws: uniform numbers per example and visit.
  """

  threads: int
  workers: int
  companions: int
  text: Text | None
  draws: ClassVar[int]

  @property
  @abc.abstractmethod
  def classes(self) -> tuple[str, ...]:
    """Names of the classes."""

  @property
  def num_classes(self) -> int:
    return len(self.classes)

  @property
  @abc.abstractmethod
  def _splits(self) -> tuple[Any, Any]:
    """The training split and the held-out split."""

  @abc.abstractmethod
  def _train_batch(self, split, ranks: np.ndarray, draws: np.ndarray) -> Batch:
    """Examples at ranks (b,), made with uniform numbers (b, draws)."""

  @functools.cached_property
  def _features(self) -> str:
    """Checks the caption features; returns a summary of them."""
    if self.text is None:
      return ''
    return self.text.check(*(s.captions(CAPTIONS) for s in self._splits))

  def unknown_words(self, caption: str) -> list[str]:
    """Words that mean nothing to a generator, see `Text.unknown`."""
    if self.text is None:
      return []
    return self.text.unknown(caption, self._splits[0].captions(SEARCHED))

  @property
  def place(self) -> str:
    """Where the examples are, for messages."""
    return str(getattr(self, 'path', '')) or type(self).__name__

  def waits_for(self) -> str:
    """What is being read for the longest time, '' where that is unknown."""
    found = []
    for split in self._splits:
      if read := split.reads.longest():
        found.append((read[1], split.name(read[0])))
    if found:
      seconds, name = max(found)
      return f'{name} of {self.place}, for {seconds:.0f} s'
    return f'{self.workers} processes read {self.place}' if self.workers else ''

  def _prepare(self, split) -> Reading:
    """Raises what can be raised before the first batch."""
    _ = self._features
    split.warm()
    return Reading(self.threads, self.workers)

  def train(
    self,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
  ) -> TrainIterator:
    """Endless shuffled batches.

    Raises:
      ConfigError: the batch size does not fit the processes or the split.
      DataError: unusable data; some faults show in later batches only.
    """
    split, draws = self._splits[0], self.draws
    assemble = functools.partial(self._train_batch, split)
    if self.companions:
      companions = self._companions(split)
      assemble = companions.beside(assemble, draws)
      draws = (1 + self.companions) * draws + self.companions
    return train_stream(
      examples=len(split),
      batch_size=batch_size,
      seed=seed,
      assemble=assemble,
      draws=draws,
      reading=self._prepare(split),
      process_index=process_index,
      process_count=process_count,
    )

  def _companions(self, split):
    return Companions(split.labels, self.companions, self.classes)

  def _pass(self, split, assemble, batch_size, process_index, process_count):
    """`one_pass` over a split; `assemble` takes the split first."""
    assemble = functools.partial(assemble, split)
    if self.companions and split is self._splits[1] and len(split):
      assemble = self._companions(split).in_a_pass(assemble)
    return one_pass(
      examples=len(split),
      batch_size=batch_size,
      assemble=assemble,
      reading=self._prepare(split),
      process_index=process_index,
      process_count=process_count,
    )
