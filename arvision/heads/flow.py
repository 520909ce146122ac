"""Distributions over latents by flow matching: of an entity, or of a token."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.heads.base import Guide
from arvision.heads.entity_transformer import EntityTransformer
from arvision.heads.mlp import TokenMLP
from arvision.layers.level import as_time
from arvision.layouts.scales import Grid, as_grids
from arvision.process.counts import ConstantSteps, Counts
from arvision.process.flow import Euler, Solver, draw_levels, mix, solve
from arvision.process.pyramidal import Stages
from arvision.random import Draw
from arvision.structs import Query


class Flow(EntityTransformer):
  """Flow matching of all tokens of an entity together, given z (FlowAR).

  Tokens of an entity see one another and no others. In training the tokens of
  all entities go through in one pass, each entity at a level of its own.

  Source: arXiv 2412.15205; OliverRensu/FlowAR, whose flow goes from noise to
    data in falling levels.

  Attributes:
    levels: law of the level of an image and entity, see
      `process.flow.draw_levels`.
    counts: solver steps at every step of the sampler.
    solver: of `process.flow`.
    channels, width, depth, heads, block, last_norm, rotary, std, remat, unroll,
      dtype: see `EntityTransformer`.
  """

  levels: str = 'uniform'
  counts: Counts = ConstantSteps(25)
  solver: Solver = Euler()

  adjustable: ClassVar[tuple[str, ...]] = ('counts', 'solver')

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """The velocity, noise - data.

    Args:
      z: (b, t, 1, d).
      query: `values` (b, t, c) float32 tokens at the noise levels `level`, (b, s)
        of every entity or (b or 1, 1) where all have the same; `entity` and
        `coords` of the tokens.

    Returns:
      (b, t, c) float32.
    """
    times = as_time(jnp.asarray(query.level))
    return self.network(z, jnp.asarray(query.values), times, query)

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error of the velocity.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, c) float32 tokens.
      draw: 'head/level' (s,) of every entity and 'head/noise' (t, c) of an
        example.
      query: of the tokens of all entities of the layout.

    Returns:
      (b, t) float32 losses, and no metrics.
    """
    noise = draw.normal('head/noise', targets.shape[1:])
    return self._squares(z, targets, noise, draw, query), {}

  def _squares(self, z, end, start, draw, query):
    """(b, t) mean squared errors on the straight line between two points."""
    entities = 1 + int(np.max(np.asarray(query.entity)))
    share = draw_levels(self.levels, draw, 'head/level', (entities,))
    x = mix(end, start, share[:, query.entity])
    level = self._level(share, np.arange(entities))
    error = self.field(z, query.replace(values=x, level=level)) - (start - end)
    return jnp.mean(error**2, -1)

  def _level(self, share, entity):
    """The noise level of a share of the way of entities (s,)."""
    del entity
    return share

  def sample(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> jax.Array:
    """Tokens (b, t, c) float32 of an entity.

    Both halves of a guided velocity are those of the conditional half's x.

    Args:
      z: (b or 2b, t, 1, d); conditional rows, then null rows.
      draw: 'head/noise' (t, c) of an example, and what the solver draws at every
        step.
      guide: merges the two halves of the velocity at a level.
      sampling: not used.
      query: of the tokens, with the step of the sampler.
    """
    noise = draw.normal('head/noise', (z.shape[1], self.channels))
    return self._solved(z, noise, draw, guide, query)

  def _solved(self, z, start, draw, guide, query):
    level = lambda share: self._level(share, query.entity[0])
    return _solved(self, z, start, draw, guide, query, level)


class PyramidalFlow(Flow):
  """The stage of one flow trajectory that belongs to an entity (E-CAR).

  A token is the end of its stage, scaled to data plus noise; that of the last
  stage is data. For `feeds.pyramidal.Pyramidal`, whose slots carry the end of
  the stage before. With one stage this is `Flow`.

  Source: arXiv 2412.14170 (E-CAR), which has no released code; arXiv 2410.05954.

  Attributes:
    scales: sides or (height, width) of the grids of all entities.
    stages: the windows of levels, those of the feed.
    channels, width, depth, heads, block, last_norm, rotary, levels, counts, solver,
      std, remat, unroll, dtype: see `Flow`. `levels` is the law of the share of
      the way in a stage.
  """

  scales: tuple[Grid, ...] = ()
  stages: Stages = Stages()

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error of the velocity.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, 2 c) float32 ends and starts of the tokens' stages.
      draw: 'head/level' (s,) of every entity.
      query: see `Flow.loss`.

    Returns:
      (b, t) float32 losses, and no metrics.
    """
    end, start = jnp.split(targets, 2, -1)
    return self._squares(z, end, start, draw, query), {}

  def sample(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> jax.Array:
    """Tokens (b, t, c) float32 of an entity, see `Flow.sample`."""
    assert query.entity is not None and query.given is not None
    count, s = z.shape[1], query.entity[0]
    noise = draw.normal('head/noise', (count, self.channels))
    grids = {math.prod(grid): grid for grid in as_grids(self.scales)}
    if count not in grids:
      raise ValueError(
        f'config.head.scales={self.scales}: none has the {count} tokens of an '
        'entity; wanted those of config.layout'
      )
    given = jnp.asarray(query.given)
    start = self.stages.start(given, noise, s, grids[count])
    return self.stages.end(self._solved(z, start, draw, guide, query), s)

  def _level(self, share, entity):
    return self.stages.level(share, entity)


class TokenFlow(TokenMLP):
  """Flow matching of every token by itself, given z: MAR's MLP, another process.

  Source: arXiv 2210.02747 (flow matching), with the network of arXiv 2406.11838.

  Attributes:
    levels: law of the level of a token, see `process.flow.draw_levels`.
    counts: solver steps at every step of the sampler.
    solver: of `process.flow`.
    channels, width, depth, repeats, remat, unroll, dtype: see `TokenMLP`.
  """

  levels: str = 'uniform'
  counts: Counts = ConstantSteps(25)
  solver: Solver = Euler()

  adjustable: ClassVar[tuple[str, ...]] = Flow.adjustable

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """The velocity, noise - data.

    Args:
      z: (b, t, 1, d).
      query: `values` (b, t, c) float32 tokens at the noise levels `level`
        (b or 1, 1 or t); (b, r t, c) with r times as many, all tokens once, then
        again.

    Returns:
      (b, r t, c) float32.
    """
    x, level = jnp.asarray(query.values), jnp.asarray(query.level)
    return self.network(z, x, 1000 * level)[..., 0, :]

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error of the velocity.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, c) float32 tokens.
      draw: 'head/level' (repeats, t) and 'head/noise' (repeats, t, c) of an
        example.
      query: see `field`; its values and level are set here.

    Returns:
      (b, t) float32 losses, and no metrics.
    """
    batch, count, _ = targets.shape
    shape = (self.repeats, count)
    level = draw_levels(self.levels, draw, 'head/level', shape)
    noise = draw.normal('head/noise', (*shape, self.channels))
    noise = noise.reshape(batch, -1, self.channels)
    data = jnp.concatenate([targets] * self.repeats, 1)
    level = level.reshape(batch, -1)
    asked = query.replace(values=mix(data, noise, level), level=level)
    error = self.field(z, asked) - (noise - data)
    squares = jnp.mean(error**2, -1)
    return jnp.mean(squares.reshape(batch, *shape), 1), {}

  def sample(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> jax.Array:
    """Tokens (b, t, c) float32, see `Flow.sample`."""
    noise = draw.normal('head/noise', (z.shape[1], self.channels))
    return _solved(self, z, noise, draw, guide, query)


def _solved(head, z, start, draw, guide, query, level=lambda share: share):
  """Tokens of a head with a velocity field; both halves see the same x."""
  halves = len(z) // len(start)
  pure, variables = head.unbind()

  def velocity(x, share):
    both, at = jnp.concatenate([x] * halves), level(share)
    asked = query.replace(values=both, level=at[None, None])
    return guide(pure.apply(variables, z, asked, method='field'), at)

  return solve(head.solver, head.counts, velocity, start, draw, query)
