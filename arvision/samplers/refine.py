"""Entities that the backbone itself brings from noise to data (xAR)."""

import dataclasses

import jax
import jax.numpy as jnp

from arvision.errors import ConfigError
from arvision.process.counts import ConstantSteps, Counts
from arvision.process.flow import EulerMaruyama, Solver, mix
from arvision.process.logits import LogitsFilter
from arvision.samplers.base import Sampler


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
    if self.logits_filter != LogitsFilter():
      raise ConfigError(
        f'config.sampler.logits_filter={self.logits_filter}: a refined entity is not chosen '
        'from anything; leave temperature, top_k and top_p as they are'
      )

  def plan(self, s, steps):
    return self.counts(s, steps)

  def within(self, network, state, cache, step, draw, known, plan):
    """Known tokens are given at the level of their entity, see `loop`.

    They are mixed with the noise that they would have started from.
    """
    model, steps = network.model, network.model.layout.steps
    shape = len(step.tokens), model.codec.spec.parts
    start = draw.normal('sampler/start', shape)

    def look(state, level):
      """The guided velocity of the entity."""
      slots = model.feed_slots(state, step)
      slots = slots.replace(level=jnp.full((1, 1), level, jnp.float32))
      scale = lambda level: self.guidance(step.s, steps, level)
      z, merge, _ = network.look(slots, step.readout, scale, cache, False)
      query = model.query(slots, step.readout)
      return merge(model.field(z, query), level)

    def at(x, level):
      """The entity at a level, its known tokens put in."""
      if known is None:
        return x
      values, keep = (
        jnp.asarray(a)[:, step.tokens] for a in (known.values, known.keep)
      )
      return jnp.where(keep[..., None], mix(values, start, level), x)

    def solve(x, now):
      i, level, to = now
      velocity = look(model.push(state, step, x), level)
      x = self.solver(x, velocity, level, to, draw.fold(i))
      return at(x, to), None

    levels = jnp.asarray(self.solver.levels(plan))
    numbers = jnp.arange(plan), levels[:-1], levels[1:]
    x, _ = jax.lax.scan(solve, start, numbers)
    state = model.push(state, step, x)
    return state, self.committed(network, state, cache, step), None
