"""Masked-token prediction in stages, one scale after another (Hi-MAR)."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.feeds.base import all_slots, carried, step_slots
from arvision.feeds.mask import Dropped, Masked
from arvision.layouts.base import take
from arvision.process.masking import masked_share
from arvision.ranges import AtLeast0, Count, Share
from arvision.structs import Targets


class Shares(Protocol):
  """How many tokens of a scale are masked in training."""

  def count(self, uniform: jax.Array, tokens: int) -> jax.Array:
    """(b,) int32 number of masked tokens, from (b,) numbers in [0, 1)."""

  def least(self, tokens: int) -> int:
    """The smallest number."""


@dataclasses.dataclass(frozen=True)
class Scheduled(Checked):
  """The share of a masking schedule at a uniform random time.

  Attributes:
    schedule: one of `process.masking.SCHEDULES`.
    group: consecutive examples with the same share, see `feeds.mask.Dropped`.
  """

  schedule: str = 'cosine'
  group: Count = 64

  def count(self, uniform, tokens):
    first = jnp.arange(len(uniform)) // self.group * self.group
    count = jnp.ceil(tokens * masked_share(self.schedule, uniform[first]))
    return jnp.maximum(count.astype(jnp.int32), self.least(tokens))

  def least(self, tokens):
    return 1


@dataclasses.dataclass(frozen=True)
class Stages(Checked, Masked):
  """Every scale is masked in a stage of its own (Hi-MAR).

  In stage s the tokens of smaller scales are visible, those of larger ones are
  masked, and of scale s a random share is. Stages after the first are shown hidden
  states of smaller scales instead of tokens (`Slots.recall`), in a share of the
  examples that grows during training; in the others they are told nothing.

  Source: arXiv 2505.20288; HiDream-ai/himar, models/himar.py and engine_mar.py.

  Attributes:
    first: law of the masked share of the smallest scale.
    later: that of the others.
    weights: of the loss of every stage, a mean over the masked tokens of the
      smallest scale, and over all tokens of another one, where the loss of visible
      ones is 0 (as published).
    recall: largest share of the examples that are shown hidden states; in sampling
      all are.
    warmup: share of the run after which it is reached.
  """

  first: Shares = Dropped()
  later: Shares = Scheduled()
  weights: tuple[AtLeast0, ...] = (0.4, 0.6)
  recall: Share = 0.25
  warmup: Share = 0.25

  def train(self, tokens, layout, codec, draw):
    if len(self.weights) != layout.steps:
      raise ValueError(
        f'config.feed.weights={self.weights}: wanted one for each of the '
        f'{layout.steps} scales of config.layout'
      )
    entity, batch = layout.entity_of_token, draw.batch
    masked, weights, bounds = [], [], []
    for s, weight in enumerate(self.weights):
      law, own = self.later if s else self.first, draw.fold(s)
      at = np.flatnonzero(entity == s)
      count = law.count(own.uniform('feed/share'), len(at))[:, None]
      order = own.permutation('feed/order', len(at))
      # Masks the first tokens of the order.
      here = jnp.argsort(order, 1) < count
      every = jnp.broadcast_to(entity > s, (batch, layout.tokens))
      masked.append(every.at[:, at].set(here))
      divisor = len(at) if s else jnp.maximum(count, 1)
      weights.append(weight * here / divisor)
      bounds.append(self._visible(layout, s) - law.least(len(at)))
    stage = layout.entity
    slot_masked = jnp.stack(masked, 1)[:, stage, layout.token.clip(0)]
    slot_masked &= layout.token >= 0
    slots = all_slots(
      carried(tokens.given, layout),
      layout,
      masked=slot_masked,
      max_unmasked=tuple(bounds),
      recall=self._recall(layout, layout.index, self._chosen(draw)),
    )
    every = jnp.concatenate(weights, 1)[:, layout.unorder]
    share = jnp.full(every.shape, 1 / layout.tokens)
    return slots, Targets(jnp.asarray(tokens.values), every, share)

  def slots(self, state, step, layout, codec, masked=None):
    later = jnp.asarray(layout.entity_of_token) > step.s
    masked = later | (False if masked is None else masked)
    masked = jnp.broadcast_to(masked, state.shape[:2])
    values, masked = self._of_slots(state, masked, layout, step.index, codec)
    every = jnp.ones(len(state), bool)
    return step_slots(
      values,
      step,
      masked=masked,
      max_unmasked=self._visible(layout, step.s),
      recall=self._recall(layout, step.index, every),
    )

  def _chosen(self, draw):
    """(b,) bool, the examples that are shown hidden states."""
    share = jnp.float32(self.recall)
    if draw.progress is not None and self.warmup:
      share = share * jnp.minimum(draw.progress / self.warmup, 1)
    return draw.uniform('feed/recall') < share

  def _recall(self, layout, index, chosen):
    """(b, n) bool, the slots that carry a hidden state."""
    token = take(layout.token, index)
    entity = take(layout.entity_of_token, token.clip(0))
    earlier = (token >= 0) & (entity < take(layout.entity, index))
    return chosen[:, None] & earlier

  def _visible(self, layout, s):
    """Slots of stage s without those of later scales."""
    return layout.prefix + int((layout.entity_of_token <= s).sum())
