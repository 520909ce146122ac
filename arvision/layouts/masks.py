"""The attention mask of the library, `attend`, and its dense and blocked forms.

`Pattern` is the mask of slots that are known at trace time. It can be evaluated
block by block, for block-sparse kernels.

Without `window` and padding the mask equals, bit for bit, the masks of the
official code of LlamaGen, VAR, FlowAR, xAR, NAR, BD3LM and ACDiT
(tests/parts/test_layouts.py compares it with recorded arrays).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from arvision.layouts.base import Layout
from arvision.ranges import Natural


class SlotInfo(NamedTuple):
  """The properties of slots that `attend` reads; their shapes broadcast."""

  index: Any
  entity: Any
  stream: Any
  valid: Any = True


def attend(q: SlotInfo, k: SlotInfo, window: int | None = None) -> Any:
  """True where query q may attend to key k; numpy or jax.numpy.

  A slot attends to the clean slots of past entities and to all slots of its own
  entity and stream. Only padding itself attends to padding.

  Args:
    q, k: slots, (..., n, 1) and (..., 1, m).
    window: number of past entities that stay visible (0 none, None all).
      Negative entities (a caption) always stay visible.

  Returns:
    (..., n, m) bool.
  """
  past = (k.stream == 0) & (k.entity < q.entity)
  if window is not None:
    past &= (k.entity >= q.entity - window) | (k.entity < 0)
  same = (q.stream == k.stream) & (q.entity == k.entity)
  return (past | same) & (k.valid | (q.index == k.index))


def slot_info(
  layout: Layout, index: Any, xp: Any = np, valid: Any = True
) -> SlotInfo:
  """Some slots of a layout, for `attend`.

  Args:
    layout: static.
    index: (n,) slots; may be traced if xp is jax.numpy.
    xp: numpy or jax.numpy.
    valid: True, or (..., n) bool.
  """
  entity, stream = xp.asarray(layout.entity), xp.asarray(layout.stream)
  return SlotInfo(index, entity[index], stream[index], valid)


def query(slots: SlotInfo) -> SlotInfo:
  """Slots as queries: adds a trailing axis for the keys."""
  return SlotInfo(*(x if x is True else x[..., :, None] for x in slots))


def key(slots: SlotInfo) -> SlotInfo:
  """Slots as keys: adds an axis for the queries before the last."""
  return SlotInfo(*(x if x is True else x[..., None, :] for x in slots))


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern:
  """The mask among n static slots, without an array of n x n.

  Patterns with equal fields are equal and hash alike, so they can be static
  arguments and cache keys.

  Attributes:
    entity, stream: (n,) int32, see `Layout`.
    window: see `attend`.
  """

  entity: np.ndarray
  stream: np.ndarray
  window: Natural | None = None

  @property
  def slots(self) -> int:
    return len(self.entity)

  def _info(self, index: Any, valid: Any = True) -> SlotInfo:
    """Some slots, by number or slice, for `attend`."""
    number = np.arange(self.slots, dtype=np.int32)[index]
    return SlotInfo(number, self.entity[index], self.stream[index], valid)

  def block(self, q: slice, k: slice) -> np.ndarray:
    """(queries, keys) bool: a block of the mask."""
    return attend(query(self._info(q)), key(self._info(k)), self.window)

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
    keys = key(self._info(every, valid))
    return attend(query(self._info(every)), keys, self.window)

  @functools.cached_property
  def _dense(self) -> np.ndarray:
    return self.block(slice(None), slice(None))

  @functools.cached_property
  def ends(self) -> np.ndarray | None:
    """(n,) int32: query i attends to exactly the keys before ends[i].

    None if the mask has another form. Most layouts have this one: slots in
    order of entities, one stream, no window.
    """
    ordered = bool((np.diff(self.entity) >= 0).all())
    windowed = self.window is not None and self.entity[0] != self.entity[-1]
    if not ordered or self.stream.any() or windowed:
      return None
    ends = np.searchsorted(self.entity, self.entity, side='right')
    return ends.astype(np.int32)

  def bands(self, least: int) -> list[tuple[slice, slice]]:
    """Splits the queries into bands that attend to different ranges of keys.

    Args:
      least: smallest number of queries of a band.

    Returns:
      consecutive (queries, keys).
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
    """Whether every slot attends to every other."""
    return self.ends is not None and bool((self.ends == self.slots).all())

  @property
  def causal(self) -> bool:
    """Whether every slot attends to itself and the slots before it."""
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
  """The pattern among some static slots of a layout.

  Args:
    layout: static.
    index: (e,) slots; not traced.
  """
  if index is layout.index:
    return _whole(layout)
  entity, stream = layout.entity[index], layout.stream[index]
  if (entity == entity[0]).all() and (stream == stream[0]).all():
    return same(entity)
  return Pattern(entity, stream, layout.window)


@functools.lru_cache(maxsize=64)
def _whole(layout):
  return Pattern(layout.entity, layout.stream, layout.window)


def same(entity: np.ndarray) -> Pattern:
  """The pattern of slots that attend to their own entity only.

  Args:
    entity: (n,) int32; not traced.
  """
  entity = np.asarray(entity, np.int32)
  if (entity == entity[0]).all():  # without a window it has `ends`
    entity, window = np.zeros_like(entity), None
  else:
    window = 0
  return Pattern(entity, np.zeros_like(entity), window)


def dense(layout: Layout) -> np.ndarray:
  """(n, n) bool mask of the whole layout."""
  return pattern(layout, layout.index).dense()


def among(layout: Layout, index: Any, xp: Any, valid: Any = True) -> Any:
  """The mask among some slots of a layout that are known at run time only.

  Args:
    layout: static.
    index: (e,) slots, traced; see `pattern` for static ones.
    xp: jax.numpy.
    valid: True or (b, e) bool, False = padding.

  Returns:
    (e, e) bool, or (b, e, e) where `valid` is given.
  """
  info = slot_info(layout, index, xp, valid)
  # Padding repeats the index of a real slot, so identify slots by position.
  info = info._replace(index=xp.arange(len(index)))
  return attend(query(info), key(info), layout.window)


def step(
  layout: Layout, index: Any, extent: int, xp: Any = np, valid: Any = True
) -> Any:
  """The mask of one decoding step against the cache.

  Args:
    layout: static.
    index: (e,) slots of the step.
    extent: static; keys are the rows [0, extent) of the cache, see
      `Layout.row`.
    xp: numpy, or jax.numpy if `index` is traced.
    valid: True or (b, extent) bool, False = padding.

  Returns:
    (e, extent) bool, or (b, e, extent) where `valid` is given.
  """

  def view(slots, valid=True):
    # Rows of the cache that hold the step itself are of the stream of the step.
    info = slot_info(layout, slots, xp, valid)
    return info._replace(
      index=xp.asarray(layout.row)[slots], stream=0 * info.stream
    )

  keys = view(layout.clean[:extent], valid)
  return attend(query(view(index)), key(keys), layout.window)


def again(layout: Layout, index: Any, valid: Any, known: Any = True) -> Any:
  """The mask of slots that are computed again against a cache of the layout.

  Args:
    layout: static, of one stream.
    index: (b, e) slots of every example; jax.numpy.
    valid: (b, e) bool, False = padding, which changes no other slot.
    known: True, or (b, n) bool, False = padding of the layout.

  Returns:
    (b, e, n + e) bool; keys are the rows of the cache, of which those of `index`
    are stale and not visible, then the slots themselves.
  """
  xp = index.__array_namespace__()
  own = slot_info(layout, index, xp, valid)
  cached = slot_info(layout, layout.index, xp, known)
  stale = ((index[..., None] == layout.index) & valid[..., None]).any(1)
  first = attend(query(own), key(cached), layout.window) & ~stale[:, None]
  # Padding may repeat a slot, so identify slots by position.
  own = own._replace(index=xp.arange(index.shape[1]))
  second = attend(query(own), key(own), layout.window)
  return xp.concatenate([first, second], -1)
