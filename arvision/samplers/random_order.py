"""MAR sampling: masked tokens in a random order, several per step."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.layouts.base import take
from arvision.process.masking import masked_counts
from arvision.random import Picked
from arvision.ranges import Few
from arvision.samplers.base import Filling, over_all
from arvision.structs import Query


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

  # Whether every pass writes to the cache.
  commits: ClassVar[bool] = False
  # Whether the head samples the tokens of an entity together.
  joint: ClassVar[bool] = False

  def within(self, network, state, cache, step, draw, known, plan):
    model, count = network.model, len(step.tokens)
    batch, tokens = draw.batch, model.layout.tokens
    order = draw.permutation('sampler/order', count)
    programs = self.programs(count)
    counts: Any = np.tile(self.counts(count), (batch, 1))
    if known is not None:
      # With known tokens all steps share one program.
      state = known.over(state)
      keep = jnp.asarray(known.keep)[:, step.tokens]
      later = jnp.take_along_axis(keep, order, 1)
      order = jnp.take_along_axis(order, jnp.argsort(later, 1, stable=True), 1)
      table = np.array([self.counts(u) for u in range(count + 1)])
      counts = jnp.asarray(table)[jnp.sum(~keep, 1)]
      most_sampled = int((table[:, :-1] - table[:, 1:]).max())
      programs = iter([(0, self.steps, count, most_sampled)])
    counts = jnp.asarray(counts)
    # The first tokens of the order stay masked longest.
    rank = jnp.argsort(order, 1)
    raster = jnp.asarray(step.tokens)
    entity = take(model.layout.entity_of_token, step.tokens)

    def sample(i, z, merge, place, state, masked):
      """Tokens (b, width, c) at some places of the entity."""
      query = Query(step=i, steps=self.steps)
      if self.joint:
        query = query.replace(
          values=state[:, raster], masked=masked, entity=entity
        )
        tokens = model.sample(z, draw.fold(i), merge, self.logits_filter, query)
        return jnp.take_along_axis(tokens, place[..., None], 1)
      # With site='hidden' the halves are already merged.
      rows = jnp.concatenate([place] * (len(z) // batch))
      z = jnp.take_along_axis(z, rows[..., None, None], 1)
      picked = Picked(draw.fold(i), place, count)
      query = query.replace(entity=entity[: place.shape[1]])
      return model.sample(z, picked, merge, self.logits_filter, query)

    def advance(carry, i, known_tokens, width):
      state, cache = carry
      before, left = counts[:, i, None], counts[:, i + 1, None]
      masked = over_all(rank < before, step, tokens)
      slots = model.feed_slots(state, step, masked)
      most = slots.max_unmasked or len(step.index)
      slots = slots.replace(max_unmasked=most - count + known_tokens)
      scale = lambda level: self.scale(left[:, 0], count, level)
      z, merge, cache = network.look(
        slots, step.readout, scale, cache, self.commits
      )
      number = left + jnp.arange(width)
      place = jnp.take_along_axis(order, jnp.minimum(number, count - 1), 1)
      sampled = sample(i, z, merge, place, state, rank < before)
      # Tokens beyond the count of the step are written out of bounds: dropped.
      where = jnp.where(number < before, raster[place], tokens)
      put = jax.vmap(lambda v, p, x: v.at[p].set(x, mode='drop'))
      return (put(state, where, sampled), cache), (state, masked)

    traces = []
    for first, end, most, width in programs:
      (state, cache), trace = jax.lax.scan(
        lambda carry, i, most=most, width=width: advance(carry, i, most, width),
        (state, cache),
        jnp.arange(first, end),
      )
      traces.append(trace)
    trace = tuple(jnp.concatenate(part) for part in zip(*traces))
    if not self.commits:
      cache = self.committed(network, state, cache, step)
    return state, cache, trace

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
    known = tokens - jnp.maximum(left, 1)
    return self.guidance(known, tokens + 1, level)

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


class Recalled(RandomOrder):
  """The same for a backbone that keeps hidden states of masked tokens (Hi-MAR)."""

  commits = True


class Joint(RandomOrder):
  """The same for a head that samples all tokens of an entity together (Hi-MAR).

  The head gets z of all tokens and the unmasked tokens, and those that the step
  does not unmask are dropped.
  """

  joint = True
