"""The base of samplers: the loop over entities, guidance and known tokens."""

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
from arvision.ranges import Layer
from arvision.structs import Array, Slots, Tokens


@flax.struct.dataclass
class Known:
  """Known tokens, which are kept instead of sampled (editing).

  Attributes:
    values: (b, t) int32 or (b, t, c) float32.
    keep: (b, t) bool, True where a token is known.
  """

  values: Array
  keep: Array

  def behind(self, count: int) -> 'Known':
    """The same behind `count` tokens that are not known."""

    def moved(x):
      more = ((0, 0), (count, 0), *[(0, 0)] * (x.ndim - 2))
      return jnp.pad(jnp.asarray(x), more)

    return Known(moved(self.values), moved(self.keep)) if count else self

  def over(self, sampled: jax.Array, which: Any = slice(None)) -> jax.Array:
    """The tokens of a step, with known tokens instead of sampled ones.

    Args:
      sampled: (b, e) or (b, e, c) tokens of the step.
      which: (e,) their raster indices; -1 for padding.

    Returns:
      an array like `sampled`.
    """
    keep, values = jnp.asarray(self.keep), jnp.asarray(self.values)
    keep = keep[:, which]
    if sampled.ndim == 3:
      keep = keep[..., None]
    return jnp.where(keep, values[:, which], sampled)


@dataclasses.dataclass(frozen=True)
class Sampler(Checked, abc.ABC):
  """Base of samplers: (model, inputs, draw, batch, known) -> Tokens.

  The loop samples one entity of the layout after another against a cache. Runs
  of equal entities are scanned and others unrolled, so the whole loop is one
  compiled program. A subclass implements `within`, which samples one entity.

  Attributes:
    guidance: schedule of the guidance scale.
    logits_filter: temperature, top-k and top-p.
    layout: a layout that replaces the one of training, for models that resize
      their positions; None: the layout of training. The sampled tokens have
      its grids.
    site: where guidance applies: to the 'field' of the head, to the 'hidden'
      states that enter the head (TokenBridge), or to 'layers' alone.
    guided_layers: layers behind which both halves of the batch become the guided
      one, -1 for the last (Infinity); guided by the `site` too unless it is
      'layers'.
  """

  guidance: Schedule = Constant()
  logits_filter: LogitsFilter = LogitsFilter()
  layout: Layout | None = None
  site: str = 'field'
  guided_layers: tuple[Layer, ...] = ()

  # Whether the backbone denoises each entity.
  refines: ClassVar[bool] = False
  # Whether masked tokens of an entity are filled over several passes.
  fills: ClassVar[bool] = False
  # Whether it masks and samples every part of a token by itself.
  fills_parts: ClassVar[bool] = False
  # Whether it writes hidden states of masked tokens, see `backbones.base`.
  recalls: ClassVar[bool] = False
  # Valid values of `site`.
  sites: ClassVar[tuple[str, ...]] = ('field', 'hidden', 'layers')

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
      inputs: inputs of the condition, leading axis b.
      draw: keys of the b examples.
      batch: b.
      known: tokens to keep instead of sampling them, or None.
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
    """The tokens, and the traces of `within`, one per run of entities."""
    layout, traces = model.layout, []
    network = Network(self, model, inputs, batch)

    def advance(carry, step, plan):
      # The keys of a layout of one entity are not folded with its step.
      own = draw.fold(step.s) if self.cached(layout) else draw
      state, cache, trace = self.within(network, *carry, step, own, known, plan)
      return (state, cache), trace

    cache = network.empty_cache() if self.cached(layout) else None
    carry = model.start(batch), cache
    for run, numbers, plan in self._runs(layout):
      if len(numbers) == 1:
        carry, trace = advance(carry, run.step(numbers[0]), plan)
      else:
        # XLA copies the whole carry of a loop that reads a part of it. So the
        # visible part of the cache is sliced before the scan and written back
        # afterwards.
        state, cache = carry
        cut = _caches(lambda cache, run=run: cache.first(run.extent), cache)
        (state, cut), trace = jax.lax.scan(
          lambda carry, i, run=run, plan=plan: advance(
            carry, run.step(i, jnp), plan
          ),
          (state, cut),
          jnp.asarray(numbers),
        )
        carry = state, _caches(lambda cut, whole: cut.over(whole), cut, cache)
      traces.append(trace)
    return model.finish(carry[0]), traces

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
      network: the model under guidance.
      state: state of the feed.
      cache: cache of the backbone; None where the layout is one filled entity.
      step: step of the layout.
      draw: keys of this entity.
      known: see `__call__`.
      plan: see `plan`.

    Returns:
      the new state, the new cache, and a trace of the step for callers of
      `loop`, or None.
    """

  def plan(self, s: int, steps: int) -> Any:
    """Static settings of entity s; equal entities of one plan are scanned."""
    del s, steps

  def committed(
    self, network: 'Network', state: Any, cache: Any, step: Step
  ) -> Any:
    """The cache with a sampled entity written to it, for later entities."""
    if not jax.tree.leaves(cache) or network.ends(step):
      return cache
    slots = network.model.feed_slots(state, step.clean)
    return network.look(slots, step.readout, lambda level: 1.0, cache)[-1]

  def cached(self, layout: Layout) -> bool:
    """Whether the loop uses a cache."""
    return not self.fills or layout.steps > 1

  @property
  def guided(self) -> bool:
    """Whether a pass of the unconditional half is needed."""
    return self.guidance.active

  def guided_to(self, scale: float) -> 'Sampler':
    """The same sampler with another largest guidance scale."""
    return dataclasses.replace(self, guidance=self.guidance.scaled_to(scale))

  def unstacked(self, layout: Layout) -> bool:
    """Whether stacks of layers are cut into layers before the loop."""
    return self.cached(layout)

  def tokenizer(self, tokenizer: Any) -> Any:
    """The tokenizer with the grids of the sampled tokens."""
    if self.layout is None or self.layout.grids == tokenizer.spec.grids:
      return tokenizer
    return tokenizer.of_grids(self.layout.grids)

  def _runs(self, layout):
    """Yields (run, entities of it, plan); a run is split where plans change."""
    for run in layout.runs:
      plans = [self.plan(run.first + i, layout.steps) for i in range(run.count)]
      for plan, numbers in itertools.groupby(
        range(run.count), plans.__getitem__
      ):
        yield run, list(numbers), plan


class Filling(Sampler):
  """Base of samplers that fill masked tokens of an entity in several passes."""

  fills = True

  def run(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> tuple[Tokens, jax.Array, jax.Array]:
    """The tokens of a layout of one entity, and the inputs of every pass.

    With `known` the schedule counts only the tokens that are not known.

    Args: see `__call__`.

    Returns:
      tokens; (steps, b, t) int32 or (steps, b, t, parts), the tokens that
      enter each pass; and (steps, b, t) bool, the mask of each pass, which has
      an entry per part for feeds that `masks_parts`.
    """
    tokens, [trace] = self.loop(model, inputs, draw, batch, known)
    return tokens, *trace


def over_all(masked: jax.Array, step: Step, tokens: int) -> jax.Array:
  """(b, t, ...) bool mask of all tokens, from the mask (b, e, ...) of a step."""
  batch, count, *parts = masked.shape
  if count == tokens:
    return masked
  return jnp.zeros((batch, tokens, *parts), bool).at[:, step.tokens].set(masked)


def _caches(f, tree, *rest):
  """Maps f over the caches of a tree; other leaves stay."""
  is_cache = lambda x: isinstance(x, Cache)
  apply = lambda x, *others: f(x, *others) if is_cache(x) else x
  return jax.tree.map(apply, tree, *rest, is_leaf=is_cache)


class Network:
  """The network under classifier-free guidance, for samplers.

  State, tokens and draws have batch b. Slots and caches have batch 2b, the
  conditional half first and the unconditional half second. Without guidance
  (scale always 1) they have batch b.
  """

  def __init__(self, sampler: Sampler, model: Any, inputs: dict, batch: int):
    """Computes the condition once, unless it depends on the slots.

    Args:
      sampler: gives guidance and site.
      model: a `BoundModel`.
      inputs: inputs of the condition, leading axis b.
      batch: b.
    """
    self.model, self._site = model, sampler.site
    self._layers = sampler.guided_layers if sampler.guided else ()
    self._copies = 2 if sampler.guided else 1
    self._inputs = self._tiled(inputs)
    self._null = jnp.repeat(jnp.arange(self._copies) > 0, batch)
    self._cond = None
    if not model.module.condition.reads_slots:
      self._cond = model.condition(self._inputs, self._null)
    self._batch = batch

  def empty_cache(self, room: int = 0) -> Any:
    """An empty cache for both halves, see `BoundModel.empty_cache`."""
    return self.model.empty_cache(self._copies * self._batch, room)

  def ends(self, step: Step) -> bool:
    """Whether the step is statically known to be the last."""
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
      readout: (t, r) index into the slots for every token and branch.
      scale: noise level, or None -> the guidance scale, () or (b,).
      cache: None: the slots attend only to one another.
      commit: whether the new cache holds the slots.

    Returns:
      z (b or 2b, t, r, d), the input of the head; the function that merges the
      two halves of the head's field; and the cache.
    """
    cond = self._cond
    if cond is None:
      cond = self.model.condition(self._inputs, self._null, slots)
    each = ['values', 'masked', 'recall', 'position', 'target_position']
    each += ['index', 'valid'] * (slots.index.ndim > 1)
    slots = slots.replace(**{k: self._tiled(getattr(slots, k)) for k in each})
    if self._layers:
      slots = slots.replace(guidance=scale(None), guided_layers=self._layers)
    z, cache = self.model.read(slots, cond, cache, readout, commit)

    def merge(field, level=None):
      if self._copies == 1:
        return field
      if self._site == 'layers':
        return jnp.split(field, 2)[0]
      each = scale(level)
      if jnp.ndim(each):
        each = each.reshape(-1, *[1] * (field.ndim - 1))
      return guide(*jnp.split(field, 2), each)

    if self._site == 'hidden':
      return merge(z), lambda field, level=None: field, cache
    return z, merge, cache

  def conditional(self, tree: Any) -> Any:
    """Arrays of both halves, with the conditional half twice."""
    return self._tiled(jax.tree.map(lambda x: x[: self._batch], tree))

  def _tiled(self, tree):
    """Arrays of leading axis b, repeated once per half."""
    if self._copies == 1:
      return tree
    return jax.tree.map(lambda x: jnp.concatenate([x] * self._copies), tree)
