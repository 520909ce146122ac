"""ReCAP: steps of masked samplers that compute a part of the tokens again."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arvision.layouts.base import Layout, take
from arvision.random import Picked
from arvision.ranges import Few, FewOr0, Natural, Share
from arvision.samplers.base import Sampler
from arvision.samplers.masked import Masked
from arvision.samplers.random_order import RandomOrder
from arvision.structs import Slots


class Program(NamedTuple):
  """Groups of steps that share a compiled program.

  Attributes:
    first: first step.
    number: number of its first group.
    count: groups.
    size: steps of each.
    widths: for every step of a group, the most tokens that it samples; 1 or more.
    width: most tokens that a group samples; 1 or more.
    masked: fewest masked tokens at the start of a group.
  """

  first: int
  number: int
  count: int
  size: int
  widths: tuple[int, ...]
  width: int
  masked: int


@dataclasses.dataclass(frozen=True)
class Reuse(Sampler):
  """Base of samplers that reuse keys and values of a full pass (ReCAP).

  Steps form groups. The first step of a group is a full pass that stores the keys
  and values of all layers, and decides which tokens the group samples. The others
  compute these tokens again, against the stored keys and values of all others.

  Attributes:
    reuse: steps after every full pass that reuse it; 0: none does.
    full_steps: number of first steps that are groups of their own.
    prefix_again: whether the steps that reuse compute the prefix again too.
    buckets: largest number of programs for groups of equal size.
  """

  reuse: FewOr0 = 1
  full_steps: FewOr0 = 0
  prefix_again: bool = True
  buckets: Few = 8

  def unstacked(self, layout: Layout) -> bool:
    return self.reuse > 0 or super().unstacked(layout)

  def groups_of(self, steps: int) -> list[tuple[int, int]]:
    """(first step, number of steps) of every group."""
    found, first = [], 0
    while first < steps:
      more = self.reuse if first >= self.full_steps else 0
      found.append((first, min(1 + more, steps - first)))
      first += found[-1][1]
    return found

  def programs_of(self, counts: np.ndarray) -> Iterator[Program]:
    """Puts groups of equal size that follow one another into `buckets`.

    Args:
      counts: (starts, steps + 1) masked tokens before every step, and at the end,
        for every number of masked tokens at the start that occurs.
    """
    groups = self.groups_of(counts.shape[1] - 1)
    sizes = np.array([size for _, size in groups])
    cuts = np.flatnonzero(np.diff(sizes)) + 1
    for same in np.split(np.arange(len(groups)), cuts):
      for part in np.array_split(same, min(self.buckets, len(same))):
        first, size = groups[part[0]]
        steps = np.array([groups[g][0] for g in part])
        at = [counts[:, steps + j] for j in range(size + 1)]
        most = lambda before, after: max(1, int((before - after).max()))
        widths = tuple(most(a, b) for a, b in zip(at, at[1:]))
        width = most(at[0], at[-1])
        number, masked = int(part[0]), int(at[0].min())
        yield Program(first, number, len(part), size, widths, width, masked)

  def check(self, run: Any) -> None:
    """Refuses layouts of several entities, whose cache holds other ones.

    Raises:
      ValueError: there are several.
    """
    if run.cache is not None:
      raise ValueError(
        f'config.sampler.reuse={self.reuse}: the layout has '
        f'{run.network.model.layout.steps} steps; only a layout of one entity '
        'can reuse; set it to 0'
      )

  def room(self, run: Any, width: int) -> int:
    """Slots of a pass that reuses, for so many tokens."""
    return width + run.network.model.layout.prefix * self.prefix_again

  def some(
    self, run: Any, slots: Slots, tokens: jax.Array, valid: jax.Array
  ) -> tuple[Slots, np.ndarray]:
    """The slots of a pass that reuses, and which of them are read.

    Args:
      run: see `samplers.masked.Run`.
      slots: all of them.
      tokens: (b, m) raster indices of the tokens.
      valid: (b, m) bool, False = padding.

    Returns:
      slots with an index for every example, and (m, 1) int32.
    """
    layout = run.network.model.layout
    index, before = take(layout.readout[:, 0], tokens), 0
    if self.prefix_again:
      before, batch = layout.prefix, len(tokens)
      prefix = jnp.tile(jnp.arange(before, dtype=index.dtype), (batch, 1))
      index = jnp.concatenate([prefix, index], 1)
      valid = jnp.concatenate([jnp.ones_like(prefix, bool), valid], 1)

    def rows(x):
      if x is None:
        return None
      x = jnp.broadcast_to(x, (len(index), *x.shape[1:]))
      at = index.reshape(*index.shape, *[1] * (x.ndim - 2))
      return jnp.take_along_axis(x, at, 1)

    own = slots.replace(
      values=rows(slots.values),
      masked=rows(slots.masked),
      index=index,
      valid=valid,
      max_unmasked=None,
    )
    return own, before + np.arange(tokens.shape[1])[:, None]


@dataclasses.dataclass(frozen=True)
class ReuseMasked(Reuse, Masked):
  """`samplers.masked.Masked` with steps that reuse a full pass (ReCAP).

  The most confident tokens of a full pass are those of the group, in this order.
  The noise of confidences falls from group to group. As published, a step that
  reuses has the guidance scale of the step before.

  Source: arXiv 2505.19089; liebenxj/ReCAP, examples/MaskGIT+ReCAP.
  """

  fills_parts = False

  def fill(self, run, start, left, table):
    if not self.reuse:
      return super().fill(run, start, left, table)
    self.check(run)
    groups, given, values = len(self.groups_of(self.steps)), [], start
    for program in self.programs_of(table):
      values, seen = jax.lax.scan(
        lambda values, g, p=program: self.group(
          run, values, left, p, g, groups
        ),
        values,
        jnp.arange(program.count),
      )
      given.append(seen.reshape(-1, *start.shape))
    return values, jnp.concatenate(given)

  def group(self, run, values, left, program, g, groups):
    """The steps of a group: new values, and what entered every pass."""
    i = program.first + g * program.size
    before = left[i]
    cache = None
    if program.size > 1:
      width = program.width * self.together
      cache = run.network.empty_cache(self.room(run, width))
    given = [values]
    values, sure, cache = self.advance(
      run, values, i, left[i + 1], program.number + g, groups, cache
    )
    if program.size == 1:
      return values, jnp.stack(given)
    # What is not masked has infinite confidence.
    order = jnp.argsort(-sure, axis=-1, stable=True)
    total = order.shape[1]
    number = jnp.arange(program.width)
    places = total - before[:, None] + number
    chosen = jnp.take_along_axis(order, places % total, 1)  # (b, width)
    inside = number < (before - left[i + program.size])[:, None]
    each = jnp.arange(self.together)
    tokens = (chosen[..., None] * self.together + each).reshape(len(chosen), -1)
    repeated = lambda x: jnp.repeat(x, self.together, 1)
    for j in range(1, program.size):
      given.append(values)
      slots, readout = self.some(
        run, self.slots(run, values), tokens, repeated(inside)
      )
      step = i + j
      logits, _ = self.logits(run, slots, readout, step, step - 1, cache, False)
      picked = Picked(run.draw.fold(step), tokens, values.shape[1])
      noise = self.noise(program.number + g, groups)
      ids, _ = self.policy(logits, picked, noise, self.progress(step))
      done = (before - left[step])[:, None], (before - left[step + 1])[:, None]
      here = repeated((number >= done[0]) & (number < done[1]))
      old = jnp.take_along_axis(values, tokens, 1)
      ids = jnp.where(here & (old < 0), ids, old)
      values = jax.vmap(lambda v, t, x: v.at[t].set(x))(values, tokens, ids)
    return values, jnp.stack(given)


@dataclasses.dataclass(frozen=True)
class ReuseRandomOrder(Reuse, RandomOrder):
  """`samplers.random_order.RandomOrder` with steps that reuse a full pass (ReCAP).

  A group samples the next tokens of the order; as published, it samples them in
  raster order.

  Source: arXiv 2505.19089; liebenxj/ReCAP, examples/MAR+ReCAP.

  Attributes:
    share: share of the denoising steps of the head in steps that reuse.
    least_masked: fewest tokens that guidance counts as masked; 1 as in MAR, 0 as
      in ReCAP, whose last step so has the whole scale.
  """

  prefix_again: bool = False
  share: Share = 1.0
  least_masked: Natural = 1

  def fill(self, run, state, table):
    if not self.reuse:
      return super().fill(run, state, table)
    self.check(run)
    traces = []
    for program in self.programs_of(table):
      state, seen = jax.lax.scan(
        lambda state, g, p=program: self.group(run, state, p, g),
        state,
        jnp.arange(program.count),
      )
      seen = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen)
      traces.append(seen)
    return state, traces

  def group(self, run, state, program, g):
    """The steps of a group: the new state, and what entered and was masked."""
    i, most = program.first + g * program.size, run.tokens - program.masked
    if program.size == 1:
      state, trace = self.advance(run, state, i, most, program.width)
      return state, jax.tree.map(lambda x: x[None], trace)
    begin, end = run.counts[:, i, None], run.counts[:, i + program.size, None]
    number = end + jnp.arange(program.width)
    place = jnp.take_along_axis(
      run.order, jnp.minimum(number, run.tokens - 1), 1
    )
    place = jnp.sort(jnp.where(number < begin, place, run.tokens), 1)
    inside = place < run.tokens
    place = jnp.minimum(place, run.tokens - 1)
    cache = run.network.empty_cache(self.room(run, program.width))
    masked, traces = run.masked(run.counts[:, i]), []
    unmask = jax.vmap(lambda m, p: m.at[p].set(False, mode='drop'))
    for j, width in enumerate(program.widths):
      step, share = i + j, self.share if j else 1.0
      slots = self.slots(run, state, masked, most)
      traces.append((state, masked))
      readout = run.step.readout
      if j:
        slots, readout = self.some(run, slots, place, inside)
      z, merge, cache = self.look(run, slots, readout, step, cache, not j)
      done = begin - run.counts[:, step, None]
      at = done + jnp.arange(width)
      here = at < begin - run.counts[:, step + 1, None]
      at = jnp.minimum(at, program.width - 1)
      own = jnp.take_along_axis(place, at, 1)
      rows = at if j else own
      state = self.put(run, state, step, z, merge, rows, own, here, share)
      masked = unmask(masked, jnp.where(here, own, run.tokens))
    stack = lambda *x: jnp.stack(x)
    return state, jax.tree.map(stack, *traces)

  def unmasked(self, left, tokens):
    return tokens - jnp.maximum(left, self.least_masked)
