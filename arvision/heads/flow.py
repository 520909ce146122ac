"""Distributions over latents by flow matching: of an entity, or of a token."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.heads.base import Guide
from arvision.heads.entity_transformer import EntityTransformer
from arvision.heads.mlp import TokenMLP
from arvision.layers.level import as_time
from arvision.process.counts import ConstantSteps, Counts
from arvision.process.flow import Euler, Solver, draw_levels, mix, solve
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
    entities = 1 + int(np.max(np.asarray(query.entity)))
    level = draw_levels(self.levels, draw, 'head/level', (entities,))
    noise = draw.normal('head/noise', targets.shape[1:])
    x = mix(targets, noise, level[:, query.entity])
    asked = query.replace(values=x, level=level)
    error = self.field(z, asked) - (noise - targets)
    return jnp.mean(error**2, -1), {}

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
    return _solved(self, z, draw, guide, query)


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
    return _solved(self, z, draw, guide, query)


def _solved(head, z, draw, guide, query):
  """Tokens of a head with a velocity field; both halves see the same x."""
  noise = draw.normal('head/noise', (z.shape[1], head.channels))
  halves = len(z) // len(noise)
  pure, variables = head.unbind()

  def velocity(x, level):
    both = jnp.concatenate([x] * halves)
    asked = query.replace(values=both, level=level[None, None])
    return guide(pure.apply(variables, z, asked, method='field'), level)

  return solve(head.solver, head.counts, velocity, noise, draw, query)
