"""Entity-by-entity sampling against a cache of fixed size."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from arvision.layers.attention import Cache
from arvision.layouts.base import Step
from arvision.ranges import Natural
from arvision.samplers.base import Known, Network, Sampler
from arvision.structs import Draw, Tokens


@dataclasses.dataclass(frozen=True)
class EntityAR(Sampler):
  """Steps of a layout in order: one forward per entity, one draw per token.

  Runs of equal entities are scanned, others unrolled, so the whole loop is one
  compiled program.

  Attributes:
    best: steps at which the best id is taken instead (FlexVAR's odd scales);
      of a layout that is not scanned.
  """

  best: tuple[Natural, ...] = ()

  def __call__(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> Tokens:
    """Draws the tokens of a batch.

    Args:
      model: a `BoundModel`.
      inputs: of the condition, leading axis b.
      draw: keys of the b examples.
      batch: b.
      known: tokens that are taken in the place of drawn ones, or None.
    """
    layout = model.layout
    network = Network(self, model, inputs, batch)

    def advance(carry, step: Step):
      state, cache = carry
      slots = model.feed_slots(state, step)
      scale = lambda level: self.guidance(step.s, layout.steps, level)
      z, merge, cache = network.look(slots, step.readout, scale, cache)
      choice = self.choice
      if self.best and int(step.s) in self.best:
        choice = dataclasses.replace(choice, temperature=0.0)
      query = model.query(slots, step.readout, step.s, layout.steps)
      tokens = model.draw(z, draw.fold(step.s), merge, choice, query)
      if known is not None:
        tokens = known.over(tokens, step.tokens)
      return model.push(state, step, tokens), cache

    carry = model.start(batch), network.cache()
    for run in layout.runs:
      if run.count == 1:
        carry = advance(carry, run.step(0))
      else:
        # A loop that reads a part of what it carries would copy it all: what it
        # sees is cut out before, and put back after.
        state, whole = carry
        seen = _caches(lambda cache, run=run: cache.first(run.extent), whole)
        (state, seen), _ = jax.lax.scan(
          lambda carry, i, run=run: (advance(carry, run.step(i, jnp)), None),
          (state, seen),
          jnp.arange(run.count),
        )
        carry = state, _caches(Cache.over, seen, whole)
    return model.finish(carry[0])


def _caches(f, tree, *rest):
  """f over the key-value caches of a tree; what else a backbone keeps stays whole."""
  is_cache = lambda x: isinstance(x, Cache)
  apply = lambda x, *others: f(x, *others) if is_cache(x) else x
  return jax.tree.map(apply, tree, *rest, is_leaf=is_cache)
