"""The one attention mask of the library, and the forms it takes.

Without `window`, prefix and padding the predicate equals, bit for bit, the
masks that the official code of LlamaGen, VAR, FlowAR, xAR, NAR, BD3LM and
ACDiT builds (tests/parts/test_masks.py holds them against recorded arrays).
"""

from typing import Any, NamedTuple

import numpy as np

from arvision.layouts.base import Layout


class Rows(NamedTuple):
  """Slots as the predicate sees them; shapes broadcast against each other."""

  index: Any
  entity: Any
  stream: Any
  prefix: Any
  valid: Any = True


def attend(q: Rows, k: Rows, window: int | None = None) -> Any:
  """True where query q may see key k; numpy or jax.numpy.

  A slot sees the clean slots of past entities and all slots of its own entity
  and stream. Padding is seen by nobody but itself.

  Args:
    q, k: rows; q.index (..., n, 1) against k.index (..., 1, m).
    window: past entities that stay visible (0 none, None all); prefix slots
      are visible whatever the window.

  Returns:
    (..., n, m) bool.
  """
  past = (k.stream == 0) & (k.entity < q.entity)
  if window is not None:
    past &= (k.entity >= q.entity - window) | k.prefix
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
  prefix = index < layout.prefix
  return Rows(index, entity[index], stream[index], prefix, valid)


def query(r: Rows) -> Rows:
  """Rows as queries: a trailing axis for the keys."""
  return Rows(*(x if x is True else x[..., :, None] for x in r))


def key(r: Rows) -> Rows:
  """Rows as keys: an axis for the queries before the last."""
  return Rows(*(x if x is True else x[..., None, :] for x in r))


def dense(layout: Layout) -> np.ndarray:
  """(n, n) bool mask of the whole layout, the reference of all others."""
  r = rows(layout, layout.index)
  return attend(query(r), key(r), layout.window)


def among(layout: Layout, index: Any, xp: Any = np, valid: Any = True) -> Any:
  """Mask of some slots of a layout that see one another.

  Args:
    layout: static.
    index: (e,) slots; may be traced where xp is jax.numpy.
    xp: numpy or jax.numpy.
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
    extent: static; keys are the slots [0, extent).
    xp: numpy, or jax.numpy where `index` is traced.
    valid: True or (b, extent) bool, keys that are not padding.

  Returns:
    (e, extent) bool, or (b, e, extent) where `valid` is given.
  """
  keys = rows(layout, layout.index[:extent], xp, valid)
  return attend(query(rows(layout, index, xp)), key(keys), layout.window)
