"""What a backbone is: from slots and a condition to hidden vectors."""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.attention import BlockInputs
from arvision.layers.stack import Caches
from arvision.layers.tied import TableLogits
from arvision.layouts.base import Layout
from arvision.structs import Cond, Slots


class Backbone(Protocol):
  """A Linen module; it knows no images, codebooks or losses.

  Attributes:
    recalls: whether its cache holds hidden states of masked tokens, which a sampler
      has to write pass by pass (`samplers.stages.Stages`).
  """

  recalls: ClassVar[bool]

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
      slots: of one step (with a cache), or slots that see one another. With
        `Slots.index` (b, n), slots of a cached layout that are computed again.
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
    """A cache without any slot: a pytree of fixed shapes.

    Samplers that compute slots again want a third argument, `room`: further rows.
    """


class Size(NamedTuple):
  """Of a stack of layers."""

  depth: int
  width: int
  heads: int


class Body(Protocol):
  """Which stacks of layers a `Decoder` has, and what runs between them.

  A frozen dataclass without parameters: the modules that it makes in a pass
  belong to the backbone.
  """

  def sizes(self, size: Size) -> tuple[Size, ...]:
    """Sizes of all stacks, of the fields of the backbone."""

  def __call__(
    self, run: 'Pass', x: jax.Array, caches: tuple[Any, ...]
  ) -> tuple[jax.Array, tuple[Any, ...]]:
    """Hidden vectors of embedded slots.

    Args:
      run: what stacks, norms and positions are made with.
      x: (b, n, d) in the compute dtype.
      caches: of every stack; None for each of them without a cache.

    Returns:
      hidden (b, n, r, d) float32, with an entry per branch or one for all of
      them; and the new caches.
    """


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
  """One pass of a `Decoder`, as its body is handed it.

  Its methods make modules of the backbone under the names that they are given.

  Attributes:
    net: the backbone.
    slots, layout: what it was called with.
    modulation: of the condition, (b, 1 or n, d) or with a row for every
      `inputs.rows`; None: there is none.
    inputs: of all blocks, but for the rotation, which depends on the size of a
      head.
    positions: (1 or b, n, d) learned ones that the slots were embedded with, or
      None.
  """

  net: Any
  slots: Slots
  layout: Layout
  modulation: Any
  inputs: BlockInputs
  positions: Any = None

  @property
  def size(self) -> Size:
    return self.net.size

  def stack(
    self,
    name: str,
    x: jax.Array,
    cache: Caches | None = None,
    size: Size | None = None,
    *,
    block: Any = None,
    mask: Any = None,
    keep: bool = False,
    skips: Any = None,
    every: int = 0,
    drop_path: tuple[float, float] | None = None,
  ) -> tuple[jax.Array, Any]:
    """x (b, n, d) after a stack of layers, and its new cache.

    Args:
      name: of the module.
      x: (b, n, d).
      cache: of the stack, or None.
      size: None: that of the backbone.
      block: template of a block; None: that of the backbone.
      mask: another one than the layout's, or None.
      keep, skips: see `Stack`.
      every: the positions are added before every so many layers, not before the
        first alone; 0: they are not.
      drop_path: rates of the first and of the last layer; None: from 0 to that
        of the backbone.
    """
    size = size or self.size
    inputs = self.inputs.replace(rotation=self._rotation(size))
    if mask is not None:
      inputs = inputs.replace(mask=mask)
    if every:
      inputs = inputs.replace(again=self.positions)
    rates = drop_path or (0.0, self.net.drop_path)
    stack = self.net.make_stack(
      size, block, rates, keep=keep, every=every or 1, name=name
    )
    return stack(x, inputs, cache, skips)

  def with_rows(self, start: int, extent: int) -> 'Pass':
    """The same with other rows of a cache, see `BlockInputs`."""
    inputs = self.inputs.replace(start=start, extent=extent)
    return dataclasses.replace(self, inputs=inputs)

  def norm(self, name: str, x: jax.Array) -> jax.Array:
    """The last norm of x (b, n, d), in float32."""
    norm = self.net.last_norm(name=name)
    x = x.astype(jnp.float32)
    if getattr(norm, 'modulated', False):
      return norm(x, self.modulation, self.inputs.rows)
    return norm(x)

  def logits(self, name: str, x: jax.Array) -> jax.Array:
    """x (..., d) -> (..., rows) by the table of the input, see `TableLogits`."""
    table = self.net.variables['params']['input']['codes']['table']
    return TableLogits(name=name)(x, nn.unbox(table))

  def position(self, name: str, width: int) -> jax.Array:
    """Positions (n, d) of a width, of a table of their own."""
    return self.net.position(width=width, name=name)(self.layout, self.slots)

  def _rotation(self, size):
    if self.net.rotary is None:
      return None
    head = size.width // size.heads
    return self.net.rotary(self.layout, self.slots, head)
