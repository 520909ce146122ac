"""The order of examples, and iterators over batches that resume exactly.

Batch k of a stream is a function of (seed, k) alone, so the whole state of an
iterator is k, whatever the number of threads, workers and processes. Where the
batch size changed, the state says so.

Differs: Grain's own `shuffle` and `repeat` work example by example and cost
about 30 us each, more than a digit costs to prepare. Here Grain maps, slices
and prefetches whole batches.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags as absl_flags

from arvision.build import Checked
from arvision.data.base import Batch
from arvision.errors import ConfigError, DataError
from arvision.ranges import FewOr0


class Order:
  """The endless order of training examples, reshuffled every epoch."""

  def __init__(self, examples: int, seed: int):
    self.examples = examples
    self.seed = seed
    # One batch touches few epochs; older orders are made again if asked for.
    self._epochs: dict[int, np.ndarray] = {}

  def __call__(self, positions: np.ndarray) -> np.ndarray:
    """(b,) int64 positions in the stream -> (b,) ranks of examples."""
    epochs, offsets = np.divmod(positions, self.examples)
    ranks = np.empty_like(offsets)
    for epoch in np.unique(epochs):
      rows = epochs == epoch
      ranks[rows] = self._permutation(int(epoch))[offsets[rows]]
    return ranks

  def _permutation(self, epoch):
    order = self._epochs.get(epoch)
    if order is None:
      rng = np.random.default_rng((self.seed, epoch))
      order = rng.permutation(self.examples)
      # A new dict, so that threads never see one that changes.
      near = {e: o for e, o in self._epochs.items() if abs(e - epoch) < 3}
      self._epochs = {**near, epoch: order}
    return order

  def __getstate__(self):
    return {'examples': self.examples, 'seed': self.seed, '_epochs': {}}


@dataclasses.dataclass(frozen=True)
class Reading(Checked):
  """How batches are prepared ahead.

  Attributes:
    threads: batches prepared at the same time in a process; 0 prepares each
      when it is asked for. Memory holds up to 2 x threads batches.
    workers: processes that prepare batches, each with these threads; 0 works
      in this process.
  """

  threads: FewOr0 = 2
  workers: FewOr0 = 0

  def start(self, batches: grain.MapDataset) -> grain.DatasetIterator:
    """An iterator that runs these threads and workers."""
    ahead = 2 * self.threads
    options = grain.ReadOptions(self.threads, max(1, ahead))
    data = batches.to_iter_dataset(options)
    if self.workers:
      # Grain reads a flag of absl, which a script or notebook does not parse.
      absl_flags.FLAGS.mark_as_parsed()
      workers = grain.multiprocessing.MultiprocessingOptions(self.workers)
      data = data.mp_prefetch(workers)
    return iter(data)


def rows_of_process(
  batch_size: int, process_index: int, process_count: int
) -> slice:
  """The rows of every global batch that a process makes.

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
  """The points (batches, examples before them) at which the size changed.

  Args:
    state: of a `TrainIterator`.
    batch_size: from now on; another than that of the state is a change here.
  """
  points = tuple((int(k), int(n)) for k, n in state.get('changes', ()))
  first, examples = points[-1] if points else (0, 0)
  k, before = state['next_batch'], state['batch_size']
  if before == batch_size:
    return points
  now = k, examples + (k - first) * before
  # A size that no batch was made with is forgotten.
  return (*(p for p in points if p[0] < k), now) if k else ()


class TrainIterator(grain.DatasetIterator):
  """Batches of a stream, for the loop and for Grain's checkpoint handlers.

  The state is {'next_batch': k, 'changes': ...} with the facts that give k its
  meaning. A state of another batch size is gone on from at the example where it
  stood: none is left out and none comes twice. `changes` are the points
  (batches, examples before them) at which the size changed.
  """

  def __init__(
    self,
    make: Callable[[int], grain.MapDataset],
    reading: Reading,
    facts: dict[str, Any],
  ):
    """Starts at the first batch.

    Args:
      make: shift -> batches, of which number k begins at the position
        k * batch_size + shift of the stream.
      reading: threads and workers.
      facts: `batch_size`, and what else gives a position its meaning; a state
        with other facts than these is refused.
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
    """Starts the threads or workers; the first `next` does it otherwise."""
    if self._running is None:
      first, examples = self._changes[-1] if self._changes else (0, 0)
      batches = self._make(examples - first * self._facts['batch_size'])
      self._running = self._reading.start(batches[self._next :])
      self._running.start_prefetch()

  def get_state(self) -> dict[str, Any]:
    return {'next_batch': self._next, 'changes': self._changes, **self._facts}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on as the iterator did that wrote the state.

    Raises:
      DataError: the state is of a stream with other examples in it.
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
    """Ends threads and workers."""
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
    batch_size: of all processes together.
    seed: of the order and of the draws.
    assemble: (ranks (b,), draws (b, draws) in [0, 1)) -> batch.
    draws: uniform numbers per example and visit.
    reading: threads and workers.
    process_index, process_count: this process among all.

  Raises:
    ConfigError: processes do not divide the batch, or there are not enough
      examples for one batch.
  """
  rows = rows_of_process(batch_size, process_index, process_count)
  if examples < batch_size:
    raise ConfigError(
      f'config.data.batch_size={batch_size}, but the training split has only '
      f'{examples} examples; make it smaller, or hold out less'
    )
  order = Order(examples, seed)

  def batches(shift):
    def batch(k, rng):
      first = k * batch_size + shift
      ranks = order(np.arange(first, first + batch_size)[rows])
      return assemble(ranks, rng.random((batch_size, draws))[rows])

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
  """Every example once, in order; the last batch is filled up.

  Args:
    examples: number of examples.
    batch_size: of all processes together; every process gets equally many
      batches.
    assemble: (ranks (b,), weight (b,) float32) -> batch; rows of padding
      repeat the last example with weight 0.
    reading: threads and workers.
    process_index, process_count: this process among all.

  Raises:
    ConfigError: processes do not divide the batch.
  """
  rows = rows_of_process(batch_size, process_index, process_count)

  def batch(k):
    positions = np.arange(k * batch_size, (k + 1) * batch_size)[rows]
    weight = (positions < examples).astype(np.float32)
    return assemble(np.minimum(positions, examples - 1), weight)

  return reading.start(
    grain.MapDataset.range(-(-examples // batch_size)).map(batch)
  )
