"""What samplers share."""

import abc
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from arvision.build import Checked
from arvision.heads.base import Guide
from arvision.layers.cache import Cache
from arvision.layouts.base import Layout, Step
from arvision.process.guidance import Constant, Schedule, guide
from arvision.process.logits import LogitsFilter
from arvision.random import Draw
from arvision.structs import Array, Slots, Tokens


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
class Sampler(Checked, abc.ABC):
  """The decode loop: (model, inputs, draw, batch, known) -> Tokens.

  Entities of the layout follow one another against a cache. Runs of equal
  entities are scanned and others unrolled, so the whole loop is one compiled
  program. A subclass states what happens within an entity.

  Attributes:
    guidance: schedule of the guidance scale.
    logits_filter: how an id is sampled from logits.
    layout: another one than in training, for a model that can have any (its
      positions are resized); the tokens that come out are its own.
    site: what is guided: the 'field' that the head gives, or the 'hidden'
      vectors that the head is given (TokenBridge).
  """

  guidance: Schedule = Constant()
  logits_filter: LogitsFilter = LogitsFilter()
  layout: Layout | None = None
  site: str = 'field'

  # Whether the backbone itself takes the noise away, entity by entity.
  refines: ClassVar[bool] = False
  # Whether masked tokens of an entity are filled over several passes.
  fills: ClassVar[bool] = False
  # What of a model it can guide.
  sites: ClassVar[tuple[str, ...]] = ('field', 'hidden')

  def __call__(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> Tokens:
    """Samples the tokens of a batch.

    Args:
      model: a `BoundModel`.
      inputs: of the condition, leading axis b.
      draw: keys of the b examples.
      batch: b.
      known: tokens that are taken instead of sampled ones, or None.
    """
    return self.loop(model, inputs, draw, batch, known)[0]

  def loop(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> tuple[Tokens, list[Any]]:
    """The tokens, and what `within` says of every run of entities."""
    layout, seen = model.layout, []
    network = Network(self, model, inputs, batch)

    def advance(carry, step, plan):
      # A layout of one entity has no step that a draw could depend on.
      own = draw.fold(step.s) if self.cached(layout) else draw
      state, cache, seen = self.within(network, *carry, step, own, known, plan)
      return (state, cache), seen

    cache = network.empty_cache() if self.cached(layout) else None
    carry = model.start(batch), cache
    for run, numbers, plan in self._runs(layout):
      if len(numbers) == 1:
        carry, told = advance(carry, run.step(numbers[0]), plan)
      else:
        # XLA copies a loop's whole carry if the loop reads a part of it. So the
        # visible part of the cache is cut out before the scan, and put back after.
        state, whole = carry
        cut = _caches(lambda cache, run=run: cache.first(run.extent), whole)
        (state, cut), told = jax.lax.scan(
          lambda carry, i, run=run, plan=plan: advance(
            carry, run.step(i, jnp), plan
          ),
          (state, cut),
          jnp.asarray(numbers),
        )
        carry = state, _caches(lambda cut, whole: cut.over(whole), cut, whole)
      seen.append(told)
    return model.finish(carry[0]), seen

  @abc.abstractmethod
  def within(
    self,
    network: 'Network',
    state: Any,
    cache: Any,
    step: Step,
    draw: Draw,
    known: Known | None,
    plan: Any,
  ) -> tuple[Any, Any, Any]:
    """Samples the tokens of one entity.

    Args:
      network: what is looked with.
      state: of the feed.
      cache: of the backbone; None where the layout is one filled entity.
      step: of the layout.
      draw: keys of this entity.
      known: see `__call__`.
      plan: see there.

    Returns:
      the new state and cache, and what a caller of `loop` is told.
    """

  def plan(self, s: int, steps: int) -> Any:
    """What is static of an entity; those of one shape and plan are scanned."""
    del s, steps

  def committed(
    self, network: 'Network', state: Any, cache: Any, step: Step
  ) -> Any:
    """The cache with an entity whose tokens are known, for those to come."""
    if cache is None or network.ends(step):
      return cache
    slots = network.model.feed_slots(state, step.clean)
    return network.look(slots, step.readout, lambda level: 1.0, cache)[-1]

  def cached(self, layout: Layout) -> bool:
    """Whether it reads the layers one by one, against a cache."""
    return not self.fills or layout.steps > 1

  def tokenizer(self, tokenizer: Any) -> Any:
    """The tokenizer of the tokens that this sampler samples."""
    if self.layout is None or self.layout.grids == tokenizer.spec.grids:
      return tokenizer
    return tokenizer.clone(scales=self.layout.grids)

  def _runs(self, layout):
    """Runs, cut where the plan changes: run, numbers of its entities, plan."""
    for run in layout.runs:
      plans = [self.plan(run.first + i, layout.steps) for i in range(run.count)]
      for plan, numbers in itertools.groupby(
        range(run.count), plans.__getitem__
      ):
        yield run, list(numbers), plan


class Filling(Sampler):
  """Masked tokens of an entity are filled over several passes."""

  fills = True

  def run(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> tuple[Tokens, jax.Array, jax.Array]:
    """The tokens of a layout of one entity, and what every pass was given.

    With `known` the schedule counts the tokens that are not.

    Returns:
      tokens, (steps, b, t) int32 or (steps, b, t, parts) what was known, and
      (steps, b, t) bool what was masked.
    """
    tokens, [seen] = self.loop(model, inputs, draw, batch, known)
    return tokens, *seen


def over_all(masked: jax.Array, step: Step, tokens: int) -> jax.Array:
  """(b, t) bool: the masked tokens (b, e) of a step, among all of a layout."""
  if masked.shape[1] == tokens:
    return masked
  return jnp.zeros((len(masked), tokens), bool).at[:, step.tokens].set(masked)


def _caches(f, tree, *rest):
  """f over the caches of a tree; what else a backbone keeps stays whole."""
  is_cache = lambda x: isinstance(x, Cache)
  apply = lambda x, *others: f(x, *others) if is_cache(x) else x
  return jax.tree.map(apply, tree, *rest, is_leaf=is_cache)


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
    self.model, self._site = model, sampler.site
    self._copies = 2 if sampler.guidance.active else 1
    self._inputs = self._tiled(inputs)
    self._null = jnp.repeat(jnp.arange(self._copies) > 0, batch)
    self._cond = None
    if not model.module.condition.reads_slots:
      self._cond = model.condition(self._inputs, self._null)
    self._batch = batch

  def empty_cache(self) -> Any:
    """A cache for all halves."""
    return self.model.empty_cache(self._copies * self._batch)

  def ends(self, step: Step) -> bool:
    """Whether no entity follows, as far as is known without running."""
    return isinstance(step.s, int) and step.s == self.model.layout.steps - 1

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
      cond = self.model.condition(self._inputs, self._null, slots)
    slots = slots.replace(
      values=self._tiled(slots.values), masked=self._tiled(slots.masked)
    )
    z, cache = self.model.read(slots, cond, cache, readout, commit)

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
