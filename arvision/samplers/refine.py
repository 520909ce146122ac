"""Entities that the backbone itself brings from noise to data (xAR)."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from arvision.build import ConfigError
from arvision.layouts.base import Layout, Run, Step
from arvision.process.choice import Choice
from arvision.process.counts import ConstantSteps, Counts
from arvision.process.flow import EulerMaruyama, Solver, mix
from arvision.samplers.base import Known, Network, Sampler
from arvision.structs import Draw, Tokens


@dataclasses.dataclass(frozen=True)
class Refine(Sampler):
  """Every entity starts as noise and is solved against the cache of the past.

  The backbone looks at the cache without keeping what it sees, as often as
  `counts` says, and is then shown the finished entity once, at level 0, for the
  entities to come. Entities of one shape and one count are scanned.

  Noise is drawn by the names 'sampler/start' (of an entity) and 'solver/step'.
  The state is float32 whatever the network computes in.

  Source: arXiv 2502.20388.

  Differs: the official code shows an entity at level 0 together with the first
  look at the next one; the numbers are the same.

  Attributes:
    counts: looks per entity, of `process.counts`.
    solver: of `process.flow`.
  """

  counts: Counts = ConstantSteps(50)
  solver: Solver = EulerMaruyama()

  refines = True
  sites = ('field',)

  def __post_init__(self):
    super().__post_init__()
    if self.choice != Choice():
      raise ConfigError(
        f'config.sampler.choice={self.choice}: a refined entity is not chosen '
        'from anything; leave temperature, top_k and top_p as they are'
      )

  def __call__(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> Tokens:
    """Draws the tokens of a batch, see `EntityAR`.

    Known tokens are shown at the level of their entity, mixed with the noise
    that they would have started from.
    """
    layout = model.layout
    network = Network(self, model, inputs, batch)

    def look(state, cache, step, level, commit):
      """The guided velocity of an entity, and the cache."""
      slots = model.feed_slots(state, step)
      slots = slots.replace(level=jnp.full((1, 1), level, jnp.float32))
      scale = lambda level: self.guidance(step.s, layout.steps, level)
      z, merge, cache = network.look(slots, step.readout, scale, cache, commit)
      query = model.query(slots, step.readout)
      return merge(model.field(z, query), level), cache

    def advance(carry, step: Step, count: int):
      state, cache = carry
      own = draw.fold(step.s)
      start = own.normal(
        'sampler/start', (len(step.tokens), model.codec.spec.parts)
      )

      def at(x, level):
        """The entity at a level, with what is known of it."""
        if known is None:
          return x
        values, keep = (
          jnp.asarray(a)[:, step.tokens] for a in (known.values, known.keep)
        )
        return jnp.where(keep[..., None], mix(values, start, level), x)

      def solve(x, now):
        i, level, to = now
        there = model.push(state, step, x)
        velocity, _ = look(there, cache, step, level, commit=False)
        x = self.solver(x, velocity, level, to, own.fold(i))
        return at(x, to), None

      levels = jnp.asarray(self.solver.levels(count))
      numbers = jnp.arange(count), levels[:-1], levels[1:]
      x, _ = jax.lax.scan(solve, start, numbers)
      state = model.push(state, step, x)
      if isinstance(step.s, int) and step.s == layout.steps - 1:
        return state, cache  # nobody comes after it
      return state, look(state, cache, step, 0.0, commit=True)[1]

    carry = model.start(batch), network.cache()
    for run, rows, count in self._groups(layout):
      if len(rows) == 1:
        carry = advance(carry, run.step(rows[0]), count)
      else:
        carry, _ = jax.lax.scan(
          lambda carry, i, run=run, count=count: (
            advance(carry, run.step(i, jnp), count),
            None,
          ),
          carry,
          jnp.asarray(rows),
        )
    return model.finish(carry[0])

  def _groups(self, layout: Layout) -> list[tuple[Run, list[int], int]]:
    """Runs, cut where the count changes, with their rows and the count."""
    return [
      (run, list(rows), count)
      for run in layout.runs
      for count, rows in itertools.groupby(
        range(run.count),
        lambda i, run=run: self.counts(run.first + i, layout.steps),
      )
    ]
