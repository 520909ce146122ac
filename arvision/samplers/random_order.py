"""Sampling of masked tokens in a random order, some at every step (MAR)."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arvision.process.masking import masked_counts
from arvision.random import Picked
from arvision.ranges import Few
from arvision.samplers.base import Filling, over_all
from arvision.structs import Query


@dataclasses.dataclass(frozen=True)
class RandomOrder(Filling):
  """Every step samples the next tokens of an order of the example's own.

  Masked tokens do not enter the network, so a step is as long as what is known.
  Steps share a compiled program with others of about the same length.

  The guidance schedule is a function of the number of known tokens, not of the
  step: `Linear` grows with the share of tokens that are known after the step. The
  last step uses the scale for one token less than all.

  A head is given z of the tokens that a step samples, and of its query the step
  alone.

  Source: arXiv 2406.11838; LTH14/mar, models/mar.py.

  Attributes:
    steps: of the loop; as many as there are tokens sample one at a time.
    schedule: of `process.masking`, how many tokens stay masked.
    buckets: programs, at most.
  """

  steps: Few = 64
  schedule: str = 'cosine'
  buckets: Few = 8

  def within(self, network, state, cache, step, draw, known, plan):
    model, count = network.model, len(step.tokens)
    batch, tokens = draw.batch, model.layout.tokens
    order = draw.permutation('sampler/order', count)
    programs = self.programs(count)
    counts: Any = np.tile(self.counts(count), (batch, 1))
    if known is not None:
      # With known tokens all steps are one program.
      state = known.over(state)
      keep = jnp.asarray(known.keep)[:, step.tokens]
      later = jnp.take_along_axis(keep, order, 1)
      order = jnp.take_along_axis(order, jnp.argsort(later, 1, stable=True), 1)
      table = np.array([self.counts(u) for u in range(count + 1)])
      counts = jnp.asarray(table)[jnp.sum(~keep, 1)]
      most_sampled = int((table[:, :-1] - table[:, 1:]).max())
      programs = iter([(0, self.steps, count, most_sampled)])
    counts = jnp.asarray(counts)
    # The first of the order stay masked longest.
    rank = jnp.argsort(order, 1)
    raster = jnp.asarray(step.tokens)

    def advance(state, i, known_tokens, width):
      before, left = counts[:, i, None], counts[:, i + 1, None]
      masked = over_all(rank < before, step, tokens)
      slots = model.feed_slots(state, step, masked)
      most = len(step.index) - count + known_tokens
      slots = slots.replace(max_unmasked=most)
      scale = lambda level: self.scale(left[:, 0], count, level)
      z, merge, _ = network.look(slots, step.readout, scale, cache, False)
      number = left + jnp.arange(width)
      place = jnp.take_along_axis(order, jnp.minimum(number, count - 1), 1)
      # At the site 'hidden' the halves are merged already.
      rows = jnp.concatenate([place] * (len(z) // batch))
      z = jnp.take_along_axis(z, rows[..., None, None], 1)
      sampled = model.draw(
        z,
        Picked(draw.fold(i), place, count),
        merge,
        self.logits_filter,
        Query(step=i, steps=self.steps),
      )
      # Tokens beyond those of the step are written outside and dropped.
      where = jnp.where(number < before, raster[place], tokens)
      put = jax.vmap(lambda v, p, x: v.at[p].set(x, mode='drop'))
      return put(state, where, sampled), (state, masked)

    seen = []
    for first, end, most, width in programs:
      state, given = jax.lax.scan(
        lambda state, i, most=most, width=width: advance(state, i, most, width),
        state,
        jnp.arange(first, end),
      )
      seen.append(given)
    told = tuple(jnp.concatenate(part) for part in zip(*seen))
    return state, self.committed(network, state, cache, step), told

  def counts(self, tokens: int) -> list[int]:
    """How many of `tokens` are masked before every step, and at the end."""
    return [tokens, *masked_counts(self.schedule, self.steps, tokens)]

  def scale(self, left: Any, tokens: int, level: Any = None) -> Any:
    """The guidance scale of a step that leaves so many tokens masked."""
    known = tokens - jnp.maximum(left, 1)
    return self.guidance(known, tokens + 1, level)

  def programs(self, tokens: int) -> Iterator[tuple[int, int, int, int]]:
    """The steps in groups, by how many tokens are known.

    Yields:
      the first step of a group and the one after its last; how many tokens are
      known at most; how many a step samples at most.
    """
    counts = np.array(self.counts(tokens))
    known = tokens - counts[:-1]
    group = known * self.buckets // tokens
    for number in np.unique(group):
      mine = np.flatnonzero(group == number)
      drawn = int((counts[mine] - counts[mine + 1]).max())
      yield int(mine[0]), int(mine[-1]) + 1, int(known[mine[-1]]), max(1, drawn)
