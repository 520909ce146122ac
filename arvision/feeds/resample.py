"""Next scale: every scale is given the one before it, resampled."""

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
  """The vectors of the scale before, and of no other (FlexVAR).

  The first scale is given zeros.

  Source: jiaosiyu1999/FlexVAR (arXiv 2502.20313).

  Attributes:
    kind: how it is resampled, see `layers.resize`.
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
    """(b, e, c) what scale s is given."""
    before = codec.embed(values[:, layout.entity_of_token == s - 1])
    before = before.reshape(len(values), *layout.grids[s - 1], -1)
    after = self._resized(before, layout.grids[s], layout)
    return after.reshape(len(values), -1, after.shape[-1])

  def _resized(self, before, grid, layout):
    """(b, h, w, c) of one scale -> (b, *grid, c) for the next."""
    return resize(before, grid, self.kind)


@dataclasses.dataclass(frozen=True)
class UpAndDown(Resample):
  """The scale before, brought to the largest grid, then down to its own (FlowAR).

  The loss of an image is the sum over its tokens, divided by those of the last
  scale: FlowAR's sum over scales of area / largest area times the mean of the
  scale.

  Source: arXiv 2412.15205; OliverRensu/FlowAR.

  Attributes:
    kind: how it is brought up, see `layers.resize`.
    down: how it is brought down.
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
  """The same over scales that are drawn at every step of training.

  The layout has all scales that there may be. Of every group of them some are
  drawn, some of these dropped, and the rows of the others do not enter: the
  program is compiled for `budget` rows, whatever was drawn. Without a run
  (evaluation, sampling) all scales of the layout enter.

  Source: jiaosiyu1999/FlexVAR, trainer.py.
  Differs: one list for a step of all devices, not one for each device.

  Attributes:
    groups: (sides or (height, width) of scales, how many of them are drawn).
    usual: scales that are taken instead with probability `usual_share`.
    usual_share: see there.
    thin: thresholds. A uniform number is drawn, and one scale other than the
      last is dropped for every threshold below it.
    kept: the smallest scales that are never dropped.
    budget: slots of the compiled program. While the scales of a list have more
      tokens, one of its four largest is dropped.
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
    given = self._all_given(tokens.given, chosen, layout, codec)
    first = take(layout.entity, index) == 0
    slots = Slots(
      values=jnp.where(first[:, None], 0, given[:, index]),
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
    """(scales,) bool: which scales of the layout are in the list."""
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
    for _ in range(count):  # no more can be dropped than there are
      rank = jnp.cumsum(chosen)
      over = jnp.sum(area * chosen) > self.budget
      largest = chosen & (rank > self.kept) & (rank > rank[-1] - 4)
      chosen = _without_one(next(keys), chosen, largest & over)
    return chosen

  def _chosen_slots(self, chosen, layout):
    """Slots (budget,) of the chosen scales in order, and which are real."""
    area = np.array([h * w for h, w in layout.grids])
    start = np.cumsum(area) - area
    ends = jnp.cumsum(area * chosen)
    row = jnp.arange(self.budget)
    scale = jnp.searchsorted(ends, row, side='right')
    scale = jnp.minimum(scale, len(area) - 1)
    place = row - (ends - area * chosen)[scale]
    valid = row < ends[-1]
    return jnp.where(valid, jnp.asarray(start)[scale] + place, 0), valid

  def _all_given(self, values, chosen, layout, codec):
    """(b, slots, c) what every scale is given if it is in the list."""
    grids, batch = layout.grids, len(values)
    side = max(max(grid) for grid in grids)
    vectors = codec.embed(values)
    maps = []
    for s, (h, w) in enumerate(grids):
      own = vectors[:, layout.entity_of_token == s].reshape(batch, h, w, -1)
      maps.append(jnp.pad(own, ((0, 0), (0, side - h), (0, side - w), (0, 0))))
    # The nearest smaller scale in the list, the first one for itself.
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
  """Drops one of the droppable, if there is any."""
  luck = jnp.where(droppable, jax.random.uniform(key, chosen.shape), -1)
  return chosen & ~(droppable & (jnp.arange(len(chosen)) == jnp.argmax(luck)))


def _matrices(kind, sides, side):
  """(to, from, side, side) the matrices between all sides, padded."""
  out = np.zeros((len(sides), len(sides), side, side), np.float32)
  for i, to in enumerate(sides):
    for j, into in enumerate(sides[: i + 1]):
      out[i, j, :to, :into] = matrix(kind, to, into)
  return jnp.asarray(out)
