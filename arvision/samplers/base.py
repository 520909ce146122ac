"""What samplers share."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from arvision.build import Checked
from arvision.heads.base import Guide
from arvision.layouts.base import Layout
from arvision.process.choice import Choice
from arvision.process.guidance import Constant, Schedule, guide
from arvision.structs import Array, Draw, Slots, Tokens


@flax.struct.dataclass
class Known:
  """Tokens of which some are not drawn but taken as they are (editing).

  Attributes:
    values: (b, t) int32 or (b, t, c).
    keep: (b, t) bool, True where a token is known.
  """

  values: Array
  keep: Array

  def over(self, drawn: jax.Array, which: Any = slice(None)) -> jax.Array:
    """Tokens (b, e) or (b, e, c) with the known ones in their places.

    Args:
      drawn: the tokens of a step.
      which: (e,) their raster numbers; -1 for padding.
    """
    keep, values = jnp.asarray(self.keep), jnp.asarray(self.values)
    keep = keep[:, which]
    if drawn.ndim == 3:
      keep = keep[..., None]
    return jnp.where(keep, values[:, which], drawn)


@dataclasses.dataclass(frozen=True)
class Sampler(Checked):
  """A decode loop: (model, inputs, draw, batch, known) -> Tokens.

  Attributes:
    guidance: schedule of the guidance scale.
    choice: how an id is chosen.
    layout: another one than in training, for a model that can have any (its
      positions are resized); the tokens that come out are its own.
    site: what is guided: the 'field' that the head gives, or the 'hidden'
      vectors that the head is given (TokenBridge).
  """

  guidance: Schedule = Constant()
  choice: Choice = Choice()
  layout: Layout | None = None
  site: str = 'field'

  # Whether it reads the layers one by one, against a cache.
  cached = True
  # Whether it takes the noise away by the backbone itself.
  refines = False
  # What of a model it can guide.
  sites: ClassVar[tuple[str, ...]] = ('field', 'hidden')

  def tokenizer(self, tokenizer: Any) -> Any:
    """The tokenizer of the tokens that this sampler draws."""
    if self.layout is None or self.layout.grids == tokenizer.spec.grids:
      return tokenizer
    return tokenizer.clone(scales=self.layout.grids)


class HoleFilling(Sampler, abc.ABC):
  """Some of the hidden tokens at every step, without a cache."""

  cached = False

  def __call__(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> Tokens:
    """Draws the tokens of a batch, see `EntityAR`."""
    return self.run(model, inputs, draw, batch, known)[0]

  @abc.abstractmethod
  def run(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> tuple[Tokens, jax.Array, jax.Array]:
    """The tokens, and what every step was shown.

    With `known` the schedule counts the tokens that are not.

    Returns:
      tokens, (steps, b, t) int32 or (steps, b, t, c) what was known, and
      (steps, b, t) bool what was not.
    """


class Network:
  """The network under guidance, as a sampler looks with it.

  State, tokens and draws have batch b. Slots and caches are tiled to 2b, first
  the conditional rows and then the null rows, unless the scale is always 1.
  """

  def __init__(self, sampler: Sampler, model: Any, inputs: dict, batch: int):
    """Asks the condition once, unless it depends on the slots.

    Args:
      sampler: its guidance and site.
      model: a `BoundModel`.
      inputs: of the condition, leading axis b.
      batch: b.
    """
    self._model, self._site = model, sampler.site
    self._copies = 2 if sampler.guidance.active else 1
    self._inputs = self._tiled(inputs)
    self._null = jnp.repeat(jnp.arange(self._copies) > 0, batch)
    self._cond = None
    if not model.module.condition.reads_slots:
      self._cond = model.condition(self._inputs, self._null)
    self.cache = lambda: model.empty_cache(self._copies * batch)

  def look(
    self,
    slots: Slots,
    readout: Any,
    scale: Callable[[Any], Any],
    cache: Any = None,
    commit: bool = True,
  ) -> tuple[jax.Array, Guide, Any]:
    """One call of the network.

    Args:
      slots: leading axis b or 1.
      readout: (t, r) number among the slots of every token and branch.
      scale: noise level, or None -> the guidance scale, () or (b,).
      cache: None: the slots see one another alone.
      commit: whether the new cache holds the slots.

    Returns:
      z (b or 2b, t, r, d) as a head is given it, what merges the halves of the
      head's field, and the cache.
    """
    cond = self._cond
    if cond is None:
      cond = self._model.condition(self._inputs, self._null, slots)
    slots = slots.replace(
      values=self._tiled(slots.values), masked=self._tiled(slots.masked)
    )
    z, cache = self._model.read(slots, cond, cache, readout, commit)

    def merge(field, level=None):
      if self._copies == 1:
        return field
      each = scale(level)
      if jnp.ndim(each):
        each = each.reshape(-1, *[1] * (field.ndim - 1))
      return guide(*jnp.split(field, 2), each)

    if self._site == 'hidden':
      return merge(z), lambda field, level=None: field, cache
    return z, merge, cache

  def _tiled(self, tree):
    """Every array of leading axis b, as often as there are halves."""
    if self._copies == 1:
      return tree
    return jax.tree.map(lambda x: jnp.concatenate([x] * self._copies), tree)
