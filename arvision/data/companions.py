"""Further examples of the class of an example, in the same row of a batch."""

from collections.abc import Callable, Sequence

import numpy as np

from arvision.data.base import Batch
from arvision.errors import DataError

Assemble = Callable[[np.ndarray, np.ndarray], Batch]


class Companions:
  """Draws distinct examples of the class of an example, without itself."""

  def __init__(self, labels: np.ndarray, count: int, classes: Sequence[str]):
    """Sorts the examples of a split by class.

    Args:
      labels: (n,) int, of every rank of the split.
      count: companions of an example.
      classes: names of the classes.

    Raises:
      DataError: a class has examples, but too few.
    """
    self.count = count
    self._order = np.argsort(labels, kind='stable')
    found, start, size = np.unique(
      labels[self._order], return_index=True, return_counts=True
    )
    small = [
      f'{classes[label]} ({n})' for label, n in zip(found, size) if n <= count
    ]
    if small:
      raise DataError(
        f'config.data.companions={count} wants classes of {count + 1} examples '
        f'or more, but {len(small)} have fewer: {", ".join(small[:5])}; make it '
        'smaller, or remove these classes'
      )
    row = np.searchsorted(found, labels)
    self._start, self._size = start[row], size[row]
    self._place = np.empty_like(self._order)
    self._place[self._order] = np.arange(len(labels))

  def __call__(self, ranks: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(b, count) ranks.

    Args:
      ranks: (b,) of the examples.
      draws: (b, count) uniform numbers in [0, 1).
    """
    taken = (self._place[ranks] - self._start[ranks])[:, None]
    for i in range(self.count):
      # The j-th of those of the class that are not taken.
      at = (draws[:, i] * (self._size[ranks] - 1 - i)).astype(np.int64)
      for used in np.sort(taken, 1).T:
        at += at >= used
      taken = np.concatenate([taken, at[:, None]], 1)
    return self._order[self._start[ranks][:, None] + taken[:, 1:]]

  def beside(self, assemble: Assemble, draws: int) -> Assemble:
    """`assemble`, and 'companions' (b, count, ...) in the batch.

    They are images or tokens, as the batch has them, and come as examples of
    their own would.

    Args:
      assemble: (ranks (b,), uniform numbers (b, draws)) -> batch.
      draws: uniform numbers of an example.

    Returns:
      the same with `(1 + count) * draws + count` numbers of an example.
    """

    def together(ranks, numbers):
      own, chosen, rest = np.split(numbers, (draws, draws + self.count), 1)
      others = rest.reshape(-1, draws)
      return self._joined(assemble, ranks, own, chosen, others)

    return together

  def in_a_pass(self, assemble: Assemble) -> Assemble:
    """The same for a pass, (ranks (b,), weight (b,)) -> batch.

    An example has the same companions in every pass.
    """

    def together(ranks, weight):
      chosen = [np.random.default_rng(r).random(self.count) for r in ranks]
      others = np.repeat(weight, self.count)
      return self._joined(assemble, ranks, weight, np.stack(chosen), others)

    return together

  def _joined(self, assemble, ranks, own, chosen, others):
    batch = assemble(ranks, own)
    more = assemble(self(ranks, chosen).ravel(), others)
    values = more['tokens' if 'tokens' in more else 'image']
    shape = len(ranks), self.count, *values.shape[1:]
    return {**batch, 'companions': values.reshape(shape)}
