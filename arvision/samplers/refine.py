"""Denoising of entities by the backbone (xAR, ACDiT)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from arvision.errors import ConfigError
from arvision.process.counts import ConstantSteps, Counts
from arvision.process.flow import EulerMaruyama, Solver
from arvision.process.logits import LogitsFilter
from arvision.ranges import FewOr0
from arvision.samplers.base import Sampler


@dataclasses.dataclass(frozen=True)
class Refine(Sampler):
  """Diffusion sampler: the backbone denoises one entity after another.

  Every entity starts as noise. A solver follows the field of the backbone, a
  velocity or what else the path of the feed states, which reads the cache of
  earlier entities and writes nothing to it. The finished entity then passes the
  backbone once more at level 0, which writes it to the cache. Entities of one
  shape and one number of solver steps are scanned.

  Noise comes from the names 'sampler/start' (of an entity) and 'solver/step'.
  The state of the solver is float32 whatever the compute dtype.

  Source: arXiv 2502.20388.

  Differs: the official code passes an entity at level 0 together with the first
  step of the next one; the numbers are the same.

  Attributes:
    counts: solver steps per entity, see `process.counts`.
    solver: see `process.flow` and `process.solvers`.
  """

  counts: Counts = ConstantSteps(50)
  solver: Solver = EulerMaruyama()

  refines = True
  sites = ('field',)
  # Whether the network also writes what it reads, at every step of the solver.
  writes: ClassVar[bool] = False

  def __post_init__(self):
    super().__post_init__()
    if self.logits_filter != LogitsFilter():
      raise ConfigError(
        f'config.sampler.logits_filter={self.logits_filter}: Refine samples '
        'from no logits; leave temperature, top_k and top_p at their defaults'
      )

  def plan(self, s, steps):
    return self.counts(s, steps)

  def within(self, network, state, cache, step, draw, known, plan):
    """Samples one entity, see `Sampler.within`.

    Known tokens enter at the level of their entity, mixed with the noise that
    they would have started from.
    """
    model, steps = network.model, network.model.layout.steps
    path = model.module.feed.path
    shape = len(step.tokens), model.codec.spec.parts
    start = draw.normal('sampler/start', shape)

    def look(state, level, cache):
      """The guided field of the entity, and the cache."""
      slots = model.feed_slots(state, step)
      slots = slots.replace(level=jnp.full((1, 1), level, jnp.float32))
      scale = lambda level: self.guidance(step.s, steps, level)
      z, merge, cache = network.look(
        slots, step.readout, scale, cache, self.writes
      )
      field = model.field(z, model.query(slots, step.readout))
      return self.followed(field, merge(field, level)), cache

    def at(x, level):
      """The entity at a level, with its known tokens."""
      if known is None:
        return x
      values, keep = (
        jnp.asarray(a)[:, step.tokens] for a in (known.values, known.keep)
      )
      return jnp.where(keep[..., None], path(values, start, level).values, x)

    def solve(carry, now):
      (x, memory, written), (i, level, to) = carry, now
      read = written if self.writes else cache
      field, new = look(model.push(state, step, x), level, read)
      x, memory = self.solver.step(
        path, x, field, level, to, draw.fold(i), memory
      )
      return (at(x, to), memory, new if self.writes else None), None

    levels = jnp.asarray(self.solver.levels(plan))
    numbers = jnp.arange(len(levels) - 1), levels[:-1], levels[1:]
    written = cache if self.writes else None
    begin = at(start, levels[0]), self.solver.start(start), written
    (x, *_), _ = jax.lax.scan(solve, begin, numbers)
    state = model.push(state, step, x)
    return state, self.committed(network, state, cache, step), None

  def followed(self, field: jax.Array, merged: jax.Array) -> jax.Array:
    """The field (b, t, c) that the solver follows.

    Args:
      field: (b or 2b, t, c) of both halves.
      merged: (b, t, c) under guidance.
    """
    del field
    return merged


@dataclasses.dataclass(frozen=True)
class Sequence(Refine):
  """Diffusion sampler whose steps are the entities of a sequence (ARFlow).

  One image is denoised. The network reads a cache of the image at all higher
  levels and writes the image at this one, at every step of the solver. So its
  cache is a state whose size does not depend on the number of steps, see
  `layers.retention`.

  Source: arXiv 2501.16085; TheFllood/ARFlow, sample.py.

  Attributes:
    layout: of one image; the layout of training has a sequence of them.
    guided_parts: numbers of a token that guidance applies to, the others are
      those of the conditional half; 0: to all (DiT guides three of four
      channels).
  """

  guided_parts: FewOr0 = 0

  writes = True

  def within(self, network, state, cache, step, draw, known, plan):
    if network.model.layout.steps > 1:
      raise ValueError(
        'config.sampler (Sequence) denoises one image: set config.sampler.layout '
        'to the layout that config.layout repeats'
      )
    return super().within(network, state, cache, step, draw, known, plan)

  def followed(self, field, merged):
    if not self.guided_parts:
      return merged
    own = field[: len(merged), :, self.guided_parts :]
    return jnp.concatenate([merged[..., : self.guided_parts], own], -1)
