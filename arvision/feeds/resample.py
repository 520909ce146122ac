"""Next-scale prediction: the input of a scale is the previous one, resampled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from arvision.feeds.base import (
  TokenState,
  all_slots,
  all_targets,
  step_slots,
)
from arvision.layers.resize import matrix, resize
from arvision.layouts.base import Layout, take
from arvision.layouts.scales import as_grids
from arvision.ranges import Count, Few, Natural, Share
from arvision.structs import Slots, Targets


@dataclasses.dataclass(frozen=True)
class Resample(TokenState):
  """The input is the embedding of the previous scale only (FlexVAR).

  The input of the first scale is zeros.

  Source: jiaosiyu1999/FlexVAR (arXiv 2502.20313).

  Attributes:
    kind: resampling filter, see `layers.resize`.
  """

  kind: str = 'bicubic'

  def train(self, tokens, layout, codec, draw):
    given = tokens.given
    values = [self._blank(codec, given, layout.runs[0].step(0))]
    for s in range(1, layout.steps):
      values.append(self._of_previous(given, s, layout, codec))
    slots = all_slots(jnp.concatenate(values, axis=1), layout)
    return slots, all_targets(jnp.asarray(tokens.values))

  def slots(self, state, step, layout, codec):
    if step.s == 0:
      return step_slots(self._blank(codec, state, step), step)
    return step_slots(self._of_previous(state, step.s, layout, codec), step)

  def _blank(self, codec, values, step):
    """(b, e, c) zeros for the first scale."""
    channels = codec.embed(values[:, :1]).shape[-1]
    return jnp.zeros((len(values), len(step.index), channels), jnp.float32)

  def _of_previous(self, values, s, layout, codec):
    """(b, e, c) input of scale s."""
    before = codec.embed(values[:, layout.entity_of_token == s - 1])
    before = before.reshape(len(values), *layout.grids[s - 1], -1)
    after = self._resized(before, layout.grids[s], layout)
    return after.reshape(len(values), -1, after.shape[-1])

  def _resized(self, before, grid, layout):
    """Resamples (b, h, w, c) to (b, *grid, c)."""
    return resize(before, grid, self.kind)


@dataclasses.dataclass(frozen=True)
class UpAndDown(Resample):
  """The previous scale, upsampled to the largest grid, then downsampled (FlowAR).

  The loss of an image is the sum over its tokens, divided by the number of tokens
  of the last scale. This is FlowAR's weighting of scales by area.

  Source: arXiv 2412.15205; OliverRensu/FlowAR.

  Attributes:
    kind: filter for upsampling, see `layers.resize`.
    down: filter for downsampling.
  """

  down: str = 'area'

  def train(self, tokens, layout, codec, draw):
    slots, targets = super().train(tokens, layout, codec, draw)
    last = layout.entity_of_token == layout.steps - 1
    return slots, targets.replace(denominator=last[None].astype(np.float32))

  def _resized(self, before, grid, layout):
    return resize(resize(before, layout.grids[-1], self.kind), grid, self.down)


@dataclasses.dataclass(frozen=True)
class RandomScales(Resample):
  """Trains on a random subset of scales at every step (FlexVAR).

  The layout has all possible scales. A step chooses some scales of every group
  and drops some of those. Only slots of the remaining scales enter, padded to
  `budget`, so that shapes are static. Outside of training, all scales of the
  layout enter.

  Source: jiaosiyu1999/FlexVAR, trainer.py.
  Differs: one subset per step for all devices, not one per device.

  Attributes:
    groups: (sides or (height, width) of scales, how many of them to choose).
    usual: scales to use instead with probability `usual_share`.
    usual_share: see `usual`.
    thin: thresholds for one uniform number per step: for every threshold below
      it, one random scale other than the last is dropped.
    kept: number of smallest scales that are never dropped.
    budget: slots of the compiled program. While the chosen scales have more
      tokens, one of the four largest is dropped.
  """

  groups: tuple[tuple[tuple, Few], ...] = ()
  usual: tuple = ()
  usual_share: Share = 0.05
  thin: tuple[Share, ...] = (0.9, 0.95, 0.98, 0.99)
  kept: Natural = 2
  budget: Count = 680

  def train(self, tokens, layout, codec, draw):
    if draw.progress is None:
      return super().train(tokens, layout, codec, draw)
    chosen = self.draw_scales(draw.key('feed/scales'), layout)
    index, valid = self._chosen_slots(chosen, layout)
    inputs = self._all_inputs(tokens.given, chosen, layout, codec)
    first = take(layout.entity, index) == 0
    slots = Slots(
      values=jnp.where(first[:, None], 0, inputs[:, index]),
      index=index,
      extent=layout.slots,
      valid=valid[None],
    )
    targets = Targets(
      values=jnp.asarray(tokens.values)[:, index],
      weight=valid[None].astype(jnp.float32),
      readout=np.arange(self.budget)[:, None],
    )
    return slots, targets

  def draw_scales(self, key: jax.Array, layout: Layout) -> jax.Array:
    """(scales,) bool: the scales of the layout to train on."""
    number = {grid: s for s, grid in enumerate(layout.grids)}
    count = len(number)
    numbers = lambda sides: np.array([number[g] for g in as_grids(sides)], int)
    area = jnp.array([h * w for h, w in layout.grids])
    keys = iter(jax.random.split(key, 4 + len(self.thin) + count))
    order = jax.random.uniform(next(keys), (count,))
    chosen = jnp.zeros(count, bool)
    for sides, wanted in self.groups:
      some = numbers(sides)
      ranks = jnp.argsort(jnp.argsort(order[some]))
      chosen = chosen.at[some].set(ranks < wanted)
    usual = jnp.zeros(count, bool).at[numbers(self.usual)].set(True)
    taken = jax.random.uniform(next(keys)) < self.usual_share
    chosen = jnp.where(taken, usual, chosen)
    x = jax.random.uniform(next(keys))
    for limit in self.thin:
      rank = jnp.cumsum(chosen)
      inner = chosen & (rank > self.kept) & (rank < rank[-1])
      chosen = _without_one(next(keys), chosen, inner & (x > limit))
    for _ in range(count):  # at most so many can be dropped
      rank = jnp.cumsum(chosen)
      over = jnp.sum(area * chosen) > self.budget
      largest = chosen & (rank > self.kept) & (rank > rank[-1] - 4)
      chosen = _without_one(next(keys), chosen, largest & over)
    return chosen

  def _chosen_slots(self, chosen, layout):
    """(budget,) slots of the chosen scales in order, and which are no padding."""
    area = np.array([h * w for h, w in layout.grids])
    start = np.cumsum(area) - area
    ends = jnp.cumsum(area * chosen)
    number = jnp.arange(self.budget)
    scale = jnp.searchsorted(ends, number, side='right')
    scale = jnp.minimum(scale, len(area) - 1)
    inside = number - (ends - area * chosen)[scale]
    valid = number < ends[-1]
    return jnp.where(valid, jnp.asarray(start)[scale] + inside, 0), valid

  def _all_inputs(self, values, chosen, layout, codec):
    """(b, slots, c) the input of every scale, if it is chosen."""
    grids, batch = layout.grids, len(values)
    side = max(max(grid) for grid in grids)
    vectors = codec.embed(values)
    maps = []
    for s, (h, w) in enumerate(grids):
      own = vectors[:, layout.entity_of_token == s].reshape(batch, h, w, -1)
      maps.append(jnp.pad(own, ((0, 0), (0, side - h), (0, side - w), (0, 0))))
    # The nearest smaller chosen scale; the first one for itself.
    number = jnp.arange(len(grids))
    latest = jax.lax.cummax(jnp.where(chosen, number, 0))
    before = jnp.concatenate([latest[:1], latest[:-1]])
    source = jnp.stack(maps, 1)[:, before]  # (b, scales, side, side, c)
    ways = [[g[axis] for g in grids] for axis in (0, 1)]
    rows, columns = (_matrices(self.kind, way, side) for way in ways)
    rows, columns = rows[number, before], columns[number, before]
    product = lambda form, m, x: jnp.einsum(form, m, x, precision='highest')
    out = product('sHh,bshwc->bsHwc', rows, source)
    out = product('sWw,bshwc->bshWc', columns, out)
    parts = [
      out[:, s, :h, :w].reshape(batch, h * w, -1)
      for s, (h, w) in enumerate(grids)
    ]
    return jnp.concatenate(parts, 1)


def _without_one(key, chosen, droppable):
  """Drops a random one of the droppable, if there is any."""
  rank = jnp.where(droppable, jax.random.uniform(key, chosen.shape), -1)
  return chosen & ~(droppable & (jnp.arange(len(chosen)) == jnp.argmax(rank)))


def _matrices(kind, sides, side):
  """(to, from, side, side) resampling matrices between all sides, padded."""
  out = np.zeros((len(sides), len(sides), side, side), np.float32)
  for i, to in enumerate(sides):
    for j, into in enumerate(sides[: i + 1]):
      out[i, j, :to, :into] = matrix(kind, to, into)
  return jnp.asarray(out)
