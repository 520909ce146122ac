"""Noisy tokens: every slot carries its own token at a noise level."""

import dataclasses

import jax
import jax.numpy as jnp

from arvision.feeds.base import (
  TokenState,
  all_slots,
  all_targets,
  carried,
  step_slots,
)
from arvision.layouts.base import Layout
from arvision.process.flow import draw_levels
from arvision.process.path import Flow, Path
from arvision.random import Draw


@dataclasses.dataclass(frozen=True)
class Noise(TokenState):
  """Every entity has a noise level of its own (xAR).

  In training the past of an entity is noisy too, at its own levels, so that the
  network does not rely on a perfect past. Targets are the field of the path,
  such as velocities. In sampling, slots carry the current tokens, and the
  sampler sets their level.

  Source: arXiv 2502.20388 (noisy context learning).

  Attributes:
    levels: distribution of the levels, one of `process.flow.LEVELS`.
    path: from data to noise, see `process.path`.
  """

  levels: str = 'logit_normal'
  path: Path = Flow()
  sees_own = True

  def train(self, tokens, layout, codec, draw):
    clean = carried(tokens.given, layout)
    level = self.level(draw, layout)
    noise = draw.normal('feed/noise', clean.shape[1:])
    noised = self.path(clean, noise, level[:, layout.group])
    target = noised.target[:, layout.readout[:, 0]]
    return all_slots(noised.values, layout, level=level), all_targets(target)

  def level(self, draw: Draw, layout: Layout) -> jax.Array:
    """(b, s) levels of all entities, see `Slots.level`.

    Raises:
      ValueError: a layout with two streams.
    """
    if layout.stream.any():
      raise ValueError(
        f'config.feed ({type(self).__name__}) has one level per entity, but '
        'config.layout has two streams; use feeds.noise.CleanPast'
      )
    return draw_levels(self.levels, draw, 'feed/level', (layout.steps,))

  def slots(self, state, step, layout, codec):
    """The slots of a step, at level 0; a sampler replaces the level."""
    values = carried(state, layout, step.index)
    return step_slots(values, step, level=jnp.zeros((1, 1), jnp.float32))


class Rising(Noise):
  """Levels sorted so that later entities are noisier."""

  def level(self, draw, layout):
    return jnp.sort(super().level(draw, layout), axis=1)


class Falling(Noise):
  """Levels sorted so that later entities are less noisy."""

  def level(self, draw, layout):
    return jnp.flip(jnp.sort(super().level(draw, layout), axis=1), axis=1)


class CleanPast(Noise):
  """Noisy entities that attend to a clean past (teacher forcing).

  The layout is a `sequence.two_stream`, whose clean copies have level 0.
  """

  def level(self, draw, layout):
    if not layout.stream.any():
      raise ValueError(
        'config.feed (CleanPast) needs a clean and a noisy copy of every token; '
        'make config.layout a layouts.sequence.two_stream'
      )
    level = draw_levels(self.levels, draw, 'feed/level', (layout.steps,))
    return jnp.concatenate([jnp.zeros_like(level), level], axis=1)
