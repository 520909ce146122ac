"""The one attention mask of the library, and the forms it takes.

`Pattern` is the mask of rows that are known before anything runs: it can be
asked for its blocks one by one, which is what a block-sparse kernel wants.

Without `window` and padding the predicate equals, bit for bit, the
masks that the official code of LlamaGen, VAR, FlowAR, xAR, NAR, BD3LM and
ACDiT builds (tests/parts/test_masks.py holds them against recorded arrays).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from arvision.layouts.base import Layout
from arvision.ranges import Count


class Rows(NamedTuple):
  """Slots as the predicate sees them; shapes broadcast against each other."""

  index: Any
  entity: Any
  stream: Any
  valid: Any = True


def attend(q: Rows, k: Rows, window: int | None = None) -> Any:
  """True where query q may see key k; numpy or jax.numpy.

  A slot sees the clean slots of past entities and all slots of its own entity
  and stream. Padding is seen by nobody but itself.

  Args:
    q, k: rows; q.index (..., n, 1) against k.index (..., 1, m).
    window: past entities that stay visible (0 none, None all). Slots before
      the first step (negative entities, a caption) are visible whatever the
      window.

  Returns:
    (..., n, m) bool.
  """
  past = (k.stream == 0) & (k.entity < q.entity)
  if window is not None:
    past &= (k.entity >= q.entity - window) | (k.entity < 0)
  same = (q.stream == k.stream) & (q.entity == k.entity)
  return (past | same) & (k.valid | (q.index == k.index))


def rows(layout: Layout, index: Any, xp: Any = np, valid: Any = True) -> Rows:
  """The predicate's view of some slots of a layout.

  Args:
    layout: static.
    index: (n,) slots; may be traced where xp is jax.numpy.
    xp: numpy or jax.numpy.
    valid: True, or (..., n) bool.
  """
  entity, stream = xp.asarray(layout.entity), xp.asarray(layout.stream)
  return Rows(index, entity[index], stream[index], valid)


def query(r: Rows) -> Rows:
  """Rows as queries: a trailing axis for the keys."""
  return Rows(*(x if x is True else x[..., :, None] for x in r))


def key(r: Rows) -> Rows:
  """Rows as keys: an axis for the queries before the last."""
  return Rows(*(x if x is True else x[..., None, :] for x in r))


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern:
  """Who may see whom among n static rows, without an array of n x n.

  Patterns of equal rows are equal and hash alike, so they may be static
  arguments and keys of caches.

  Attributes:
    entity, stream: (n,) int32, see `Layout`.
    window: see `attend`.
  """

  entity: np.ndarray
  stream: np.ndarray
  window: Count | None = None

  @property
  def slots(self) -> int:
    return len(self.entity)

  def rows(self, index: Any, valid: Any = True) -> Rows:
    """The predicate's view of some rows, by number or slice."""
    number = np.arange(self.slots, dtype=np.int32)[index]
    return Rows(number, self.entity[index], self.stream[index], valid)

  def block(self, q: slice, k: slice) -> np.ndarray:
    """(queries, keys) bool: a block of the mask."""
    return attend(query(self.rows(q)), key(self.rows(k)), self.window)

  def dense(self, valid: Any = True) -> Any:
    """The whole mask.

    Args:
      valid: True, or (b, n) bool of numpy or jax.numpy.

    Returns:
      (n, n) bool of numpy, or (b, n, n) where `valid` is given.
    """
    if valid is True:
      return self._dense
    every = slice(None)
    keys = key(self.rows(every, valid))
    return attend(query(self.rows(every)), keys, self.window)

  @functools.cached_property
  def _dense(self) -> np.ndarray:
    return self.block(slice(None), slice(None))

  @functools.cached_property
  def ends(self) -> np.ndarray | None:
    """(n,) int32: row i sees the keys before ends[i] and no others.

    None where the mask is no such staircase. Most layouts are one: rows are in
    the order of their entities, of one stream, and see all of the past.
    """
    ordered = bool((np.diff(self.entity) >= 0).all())
    if not ordered or self.stream.any() or self.window is not None:
      return None
    ends = np.searchsorted(self.entity, self.entity, side='right')
    return ends.astype(np.int32)

  def bands(self, least: int) -> list[tuple[slice, slice]]:
    """The rows in blocks, each with the range of keys that its rows see.

    Args:
      least: rows of a block.

    Returns:
      (rows, keys), whose rows follow one another; one block where more would
      see the same keys.
    """
    first = self._dense.argmax(1)
    last = self.slots - self._dense[:, ::-1].argmax(1)
    steps = np.flatnonzero((np.diff(first) != 0) | (np.diff(last) != 0)) + 1
    cuts = [0]
    for step in steps.tolist():
      if min(step - cuts[-1], self.slots - step) >= least:
        cuts.append(step)
    blocks = [slice(*ends) for ends in zip(cuts, [*cuts[1:], self.slots])]
    return [(b, slice(first[b].min(), last[b].max())) for b in blocks]

  @property
  def full(self) -> bool:
    """Whether every row sees every other."""
    return self.ends is not None and bool((self.ends == self.slots).all())

  @property
  def causal(self) -> bool:
    """Whether every row sees itself and the rows before it."""
    number = np.arange(1, self.slots + 1)
    return self.ends is not None and np.array_equal(self.ends, number)

  @functools.cached_property
  def _key(self):
    columns = self.entity, self.stream
    return self.window, *(np.ascontiguousarray(x).tobytes() for x in columns)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Pattern) and self._key == other._key

  def __hash__(self) -> int:
    return hash(self._key)


def pattern(layout: Layout, index: np.ndarray) -> Pattern:
  """The pattern of static slots of a layout that see one another.

  Args:
    layout: static.
    index: (e,) slots; not traced.
  """
  if index is layout.index:
    return _whole(layout)
  r = rows(layout, index)
  return Pattern(r.entity, r.stream, layout.window)


@functools.lru_cache(maxsize=64)
def _whole(layout):
  r = rows(layout, layout.index)
  return Pattern(r.entity, r.stream, layout.window)


def same(entity: np.ndarray) -> Pattern:
  """Rows that see the rows of their own entity alone.

  Args:
    entity: (n,) int32; not traced.
  """
  entity = np.asarray(entity, np.int32)
  if (entity == entity[0]).all():  # nothing before it: the plainest form
    entity, window = np.zeros_like(entity), None
  else:
    window = 0
  return Pattern(entity, np.zeros_like(entity), window)


def dense(layout: Layout) -> np.ndarray:
  """(n, n) bool mask of the whole layout, the reference of all others."""
  return pattern(layout, layout.index).dense()


def among(layout: Layout, index: Any, xp: Any, valid: Any = True) -> Any:
  """Mask of some slots of a layout that see one another, where these are data.

  Args:
    layout: static.
    index: (e,) slots, traced; see `pattern` for static ones.
    xp: jax.numpy.
    valid: True or (b, e) bool, slots that are not padding.

  Returns:
    (e, e) bool, or (b, e, e) where `valid` is given.
  """
  r = rows(layout, index, xp, valid)
  # Rows that only pad have the index of some slot: count rows instead.
  r = r._replace(index=xp.arange(len(index)))
  return attend(query(r), key(r), layout.window)


def step(
  layout: Layout, index: Any, extent: int, xp: Any = np, valid: Any = True
) -> Any:
  """Mask of one decoding step against a cache.

  Args:
    layout: static.
    index: (e,) slots of the step, traced or not.
    extent: static; keys are the rows [0, extent) of the cache, see `Layout.row`.
    xp: numpy, or jax.numpy where `index` is traced.
    valid: True or (b, extent) bool, keys that are not padding.

  Returns:
    (e, extent) bool, or (b, e, extent) where `valid` is given.
  """

  def view(slots, valid=True):
    # Rows of the cache that hold the step itself are of the stream of the step.
    r = rows(layout, slots, xp, valid)
    return r._replace(index=xp.asarray(layout.row)[slots], stream=0 * r.stream)

  keys = view(layout.clean[:extent], valid)
  return attend(query(view(index)), key(keys), layout.window)
