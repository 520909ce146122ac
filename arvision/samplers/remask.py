"""Next-entity sampling with masked refinement (HMAR)."""

import dataclasses

import jax
import jax.numpy as jnp

from arvision.process.guidance import Constant, Schedule
from arvision.process.masking import least_sure
from arvision.ranges import Natural
from arvision.samplers.base import Sampler, over_all


@dataclasses.dataclass(frozen=True)
class Remask(Sampler):
  """Samples an entity at once, then its least likely tokens again.

  The first pass of an entity is that of `samplers.entity.EntityAR`. Every further
  pass masks the tokens with the lowest probabilities and samples them again,
  given the others. A token that a pass does not mask stays. Probabilities are
  those after top-k and top-p.

  Source: arXiv 2506.04421; NVlabs/HMAR, models/hmar.py, `generate`.

  Attributes:
    passes: for every entity, how many tokens each of its passes decides on: with
      (1, 3), four tokens are sampled and three of them again. The first number
      is not read: (n,) is a single pass. (): one pass for all entities. An entity
      of one token has a single pass in any case.
    refining: schedule of the guidance scale of all passes but the first.
  """

  passes: tuple[tuple[Natural, ...], ...] = ()
  refining: Schedule = Constant()

  fills = True

  def within(self, network, state, cache, step, draw, known, plan):
    """Samples one entity; the trace are the masks (b, e) of further passes."""
    model, steps = network.model, network.model.layout.steps

    def look(slots, schedule, draw, cache, commit):
      """Ids of all tokens, their probabilities, and the cache."""
      scale = lambda level: schedule(step.s, steps, level)
      z, merge, cache = network.look(slots, step.readout, scale, cache, commit)
      query = model.query(slots, step.readout, step.s, steps)
      logits = merge(model.field(z, query))
      ids = self.logits_filter(logits, draw)
      kept = jax.nn.softmax(self.logits_filter.filter(logits), -1)
      sure = jnp.take_along_axis(kept, ids[..., None], -1)[..., 0]
      return ids, sure, cache

    slots = model.feed_slots(state, step)
    ids, sure, cache = look(slots, self.guidance, draw, cache, True)
    masked, trace = jnp.ones(ids.shape, bool), []
    if known is not None:
      masked = ~jnp.asarray(known.keep)[:, step.tokens]
      ids = known.over(ids, step.tokens)
    if len(step.tokens) == 1:
      plan = ()
    if plan and model.layout.prefix and step.s == 0:
      raise ValueError(
        f'config.sampler.passes={self.passes}: the condition fills the slots of '
        'the first entity, which have no masked form; wanted a single pass for it'
      )
    for i, count in enumerate(plan):
      least = least_sure(jnp.where(masked, sure, jnp.inf), jnp.array([count]))
      masked &= least
      trace.append(masked)
      given = model.push(state, step, ids)
      everywhere = over_all(masked, step, model.layout.tokens)
      slots = model.feed_slots(given, step, everywhere)
      again, sure, _ = look(
        slots, self.refining, draw.fold(i + 1), cache, False
      )
      ids = jnp.where(masked, again, ids)
    return model.push(state, step, ids), cache, trace

  def plan(self, s, steps):
    """How many tokens every further pass masks.

    Raises:
      ValueError: `passes` has another number of entries than there are steps.
    """
    if not self.passes:
      return ()
    if len(self.passes) != steps:
      raise ValueError(
        f'config.sampler.passes has {len(self.passes)} entries for {steps} steps'
      )
    own = self.passes[s]
    return tuple(sum(own[i:]) for i in range(1, len(own)))
