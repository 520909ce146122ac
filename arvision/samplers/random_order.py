"""MAR sampling: masked tokens in a random order, several per step."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arvision.layouts.base import Step, take
from arvision.process.masking import masked_counts
from arvision.random import Draw, Picked
from arvision.ranges import Few
from arvision.samplers.base import Filling, Network, over_all
from arvision.structs import Query, Slots


class Run(NamedTuple):
  """What all steps over an entity have in common.

  Attributes:
    network, cache, step, draw: see `Sampler.within`.
    order: (b, t) tokens of the entity; the first stay masked longest.
    rank: (b, t) place of every token in the order.
    counts: (b, steps + 1) masked tokens before every step, and at the end.
  """

  network: Network
  cache: Any
  step: Step
  draw: Draw
  order: jax.Array
  rank: jax.Array
  counts: jax.Array

  @property
  def tokens(self) -> int:
    """Tokens of the entity."""
    return len(self.step.tokens)

  def masked(self, count: jax.Array) -> jax.Array:
    """(b, t) bool, where (b,) tokens of the entity are masked."""
    whole = self.network.model.layout.tokens
    return over_all(self.rank < count[:, None], self.step, whole)


@dataclasses.dataclass(frozen=True)
class RandomOrder(Filling):
  """MAR sampler: masked tokens are sampled in a random order per example.

  Masked tokens do not enter the network, so a step only computes the unmasked
  tokens. Steps with about the same number of unmasked tokens share one program.

  The guidance schedule depends on the number of unmasked tokens and not on the
  step: the scale of `Linear` grows with the share of unmasked tokens after the
  step. The last step uses the scale for one masked token.

  The head gets z of the tokens that the step samples, and a query with their
  entity and the step.

  Source: arXiv 2406.11838; LTH14/mar, models/mar.py.

  Attributes:
    steps: steps of the loop; one step per token samples them one at a time.
    schedule: schedule of `process.masking`: the share of tokens that stay
      masked after every step.
    buckets: largest number of programs.
  """

  steps: Few = 64
  schedule: str = 'cosine'
  buckets: Few = 8

  # Whether the head samples the tokens of an entity together.
  joint: ClassVar[bool] = False

  def within(self, network, state, cache, step, draw, known, plan):
    count = len(step.tokens)
    order = draw.permutation('sampler/order', count)
    # The numbers of masked tokens that occur, by those at the start.
    table = np.array([self.counts(count)])
    counts: Any = np.tile(table, (draw.batch, 1))
    if known is not None:
      state = known.over(state)
      keep = jnp.asarray(known.keep)[:, step.tokens]
      later = jnp.take_along_axis(keep, order, 1)
      order = jnp.take_along_axis(order, jnp.argsort(later, 1, stable=True), 1)
      table = np.array([self.counts(u) for u in range(count + 1)])
      counts = jnp.asarray(table)[jnp.sum(~keep, 1)]
    rank, counts = jnp.argsort(order, 1), jnp.asarray(counts)
    run = Run(network, cache, step, draw, order, rank, counts)
    state, traces = self.fill(run, state, table)
    trace = tuple(jnp.concatenate(part) for part in zip(*traces))
    return state, self.committed(network, state, cache, step), trace

  def fill(
    self, run: Run, state: Any, table: np.ndarray
  ) -> tuple[Any, list[tuple[jax.Array, jax.Array]]]:
    """Fills an entity.

    Args:
      run: see `Run`.
      state: of the feed.
      table: (starts, steps + 1) the rows of `Run.counts` that occur.

    Returns:
      the state; and of consecutive steps, what entered and which were masked.
    """
    programs = self.programs(run.tokens)
    if len(table) > 1:
      # With known tokens all steps share one program.
      most_sampled = int((table[:, :-1] - table[:, 1:]).max())
      programs = iter([(0, self.steps, run.tokens, most_sampled)])
    traces = []
    for first, end, most, width in programs:
      state, trace = jax.lax.scan(
        lambda state, i, most=most, width=width: self.advance(
          run, state, i, most, width
        ),
        state,
        jnp.arange(first, end),
      )
      traces.append(trace)
    return state, traces

  def advance(
    self, run: Run, state: Any, i: Any, most: int, width: int
  ) -> tuple[Any, tuple[Any, jax.Array]]:
    """A step: the new state, and what entered and was masked.

    Args:
      run: see `Run`.
      state: of the feed.
      i: () number of the step.
      most: static; most tokens that are not masked.
      width: static; most tokens that it samples.
    """
    masked = run.masked(run.counts[:, i])
    slots = self.slots(run, state, masked, most)
    z, merge, _ = self.look(
      run, slots, run.step.readout, i, run.cache, commit=False
    )
    return self.unmask(run, state, i, z, merge, width), (state, masked)

  def unmask(
    self, run: Run, state: Any, i: Any, z: jax.Array, merge: Any, width: int
  ) -> Any:
    """The state with the tokens of a step, see `advance` and `put`."""
    number = run.counts[:, i + 1, None] + jnp.arange(width)
    place = jnp.take_along_axis(
      run.order, jnp.minimum(number, run.tokens - 1), 1
    )
    inside = number < run.counts[:, i, None]
    return self.put(run, state, i, z, merge, place, place, inside)

  def slots(self, run: Run, state: Any, masked: jax.Array, most: int) -> Slots:
    """The slots of a step, of which (b, t) tokens are masked."""
    slots = run.network.model.feed_slots(state, run.step, masked)
    every = slots.max_unmasked or len(run.step.index)
    return slots.replace(max_unmasked=every - run.tokens + most)

  def look(
    self,
    run: Run,
    slots: Slots,
    readout: Any,
    i: Any,
    cache: Any,
    commit: bool,
  ) -> tuple[jax.Array, Any, Any]:
    """`Network.look` with the guidance scale of step i."""
    left = run.counts[:, i + 1]
    scale = lambda level: self.scale(left, run.tokens, level)
    return run.network.look(slots, readout, scale, cache, commit)

  def put(
    self,
    run: Run,
    state: Any,
    i: Any,
    z: jax.Array,
    merge: Any,
    rows: jax.Array,
    place: jax.Array,
    inside: jax.Array,
    share: float = 1.0,
  ) -> Any:
    """The state with sampled tokens.

    Args:
      run: see `Run`.
      state: of the feed.
      i: () number of the step.
      z, merge: see `Network.look`.
      rows: (b, m) rows of z of the tokens.
      place: (b, m) the tokens, as numbers within the entity.
      inside: (b, m) bool, False = padding.
      share: see `Query`.
    """
    tokens = run.network.model.layout.tokens
    sampled = self.sample(run, state, i, z, merge, rows, place, share)
    # Padding is written out of bounds: dropped.
    where = jnp.where(inside, jnp.asarray(run.step.tokens)[place], tokens)
    put = jax.vmap(lambda v, p, x: v.at[p].set(x, mode='drop'))
    return put(state, where, sampled)

  def sample(
    self,
    run: Run,
    state: Any,
    i: Any,
    z: jax.Array,
    merge: Any,
    rows: jax.Array,
    place: jax.Array,
    share: float,
  ) -> jax.Array:
    """(b, m, ...) sampled tokens, see `put`."""
    del state
    model = run.network.model
    entity = take(model.layout.entity_of_token, run.step.tokens)
    # With site='hidden' the halves are already merged.
    rows = jnp.concatenate([rows] * (len(z) // len(place)))
    return model.sample(
      jnp.take_along_axis(z, rows[..., None, None], 1),
      Picked(run.draw.fold(i), place, run.tokens),
      merge,
      self.logits_filter,
      Query(
        step=i,
        steps=self.steps,
        share=share,
        entity=entity[: place.shape[1]],
      ),
    )

  def counts(self, tokens: int) -> list[int]:
    """Number of masked tokens before every step, and at the end."""
    return [tokens, *masked_counts(self.schedule, self.steps, tokens)]

  def scale(self, left: Any, tokens: int, level: Any = None) -> Any:
    """The guidance scale of a step.

    Args:
      left: () or (b,) tokens that stay masked after the step.
      tokens: number of all tokens.
      level: noise level, or None.
    """
    return self.guidance(self.unmasked(left, tokens), tokens + 1, level)

  def unmasked(self, left: Any, tokens: int) -> Any:
    """What guidance counts as unmasked, see `scale`."""
    return tokens - jnp.maximum(left, 1)

  def programs(self, tokens: int) -> Iterator[tuple[int, int, int, int]]:
    """Groups the steps by their number of unmasked tokens.

    Yields:
      (first step, end step, largest number of unmasked tokens, largest number
      of tokens that a step samples) of every group.
    """
    counts = np.array(self.counts(tokens))
    known = tokens - counts[:-1]
    group = known * self.buckets // tokens
    for number in np.unique(group):
      steps = np.flatnonzero(group == number)
      width = max(1, int((counts[steps] - counts[steps + 1]).max()))
      yield int(steps[0]), int(steps[-1]) + 1, int(known[steps[-1]]), width


class Joint(RandomOrder):
  """The same for a head that samples all tokens of an entity together (Hi-MAR).

  The head gets z of all tokens, and a query with the unmasked ones. Tokens that the
  step does not unmask are dropped.
  """

  joint = True

  def sample(self, run, state, i, z, merge, rows, place, share):
    model, step = run.network.model, run.step
    query = Query(
      values=state[:, step.tokens],
      masked=run.rank < run.counts[:, i, None],
      entity=take(model.layout.entity_of_token, step.tokens),
      step=i,
      steps=self.steps,
      share=share,
    )
    tokens = model.sample(z, run.draw.fold(i), merge, self.logits_filter, query)
    return jnp.take_along_axis(tokens, place[..., None], 1)
