"""What a backbone is: from slots and a condition to hidden vectors."""

from typing import Any, Protocol

import jax

from arvision.layouts.base import Layout
from arvision.structs import Cond, Slots


class Backbone(Protocol):
  """A Linen module; it knows no images, codebooks or losses."""

  def __call__(
    self,
    slots: Slots,
    cond: Cond,
    layout: Layout,
    *,
    cache: Any = None,
    commit: bool = True,
    train: bool = False,
  ) -> tuple[jax.Array, Any]:
    """Hidden vectors of some slots.

    Args:
      slots: of one step (with a cache), or slots that see one another.
      cond: its prefix fills the slots before `layout.prefix`.
      layout: static.
      cache: of `empty_cache` or the last call, or None. Slots see what it holds.
      commit: static; False looks at the cache without keeping the new slots, as
        samplers that refine an entity in place want it.
      train: whether dropout is on.

    Returns:
      hidden (b, n, r, d) in the compute dtype, with an entry per branch or one
      for all of them; and the new cache.
    """

  def empty_cache(self, batch: int, layout: Layout) -> Any:
    """A cache without any slot: a pytree of fixed shapes."""
