"""Masked-token prediction (MaskGIT, TiTok's generator, MAR, MaskBit)."""

import dataclasses
import math

import jax.numpy as jnp

from arvision.build import Checked
from arvision.feeds.base import TokenState, all_slots, carried, step_slots
from arvision.layouts.base import take
from arvision.process.masking import masked_share, truncated_normal
from arvision.ranges import AtLeast0, Below1, Count, Few, Positive, Share
from arvision.structs import Targets


class Masked(TokenState):
  """Every slot carries its own token, unless it is masked."""

  sees_own = True
  fills = True

  def slots(self, state, step, layout, codec, masked=None):
    """The slots of a step, with some tokens masked.

    Args:
      state: (b, t) or (b, t, parts) tokens; values of masked ones are ignored.
      step: step of the layout.
      layout: static.
      codec: the bound tokenizer; it embeds ids of several parts.
      masked: (b, t) bool, True = hidden from the network; None: none is.
    """
    values, masked = self._of_slots(state, masked, layout, step.index, codec)
    return step_slots(values, step, masked=masked)

  def _all(self, tokens, layout, codec, masked):
    """The slots of the whole layout, for training."""
    index = layout.index
    values, masked = self._of_slots(tokens.given, masked, layout, index, codec)
    return all_slots(values, layout, masked=masked)

  def _of_slots(self, tokens, masked, layout, index, codec):
    """The tokens that slots carry, and which slots are masked."""
    if tokens.ndim == 3 and jnp.issubdtype(tokens.dtype, jnp.integer):
      tokens = codec.embed(tokens)
    if masked is not None:
      token = take(layout.token, index)
      masked = jnp.where(token >= 0, masked[:, token], False)
    return carried(tokens, layout, index), masked


@dataclasses.dataclass(frozen=True)
class RandomMask(Masked):
  """Masks a random share of the tokens of every example (MaskGIT).

  The share is that of the masking schedule at a uniform random time.

  Source: arXiv 2202.04200; bytedance/1d-tokenizer, modeling/maskgit.py.

  Attributes:
    schedule: one of `process.masking.SCHEDULES`.
    lowest: smallest masked share.
    unmasked_weight: loss weight of unmasked tokens.
    together: consecutive tokens that are masked as one, the ids of a place.
  """

  schedule: str = 'arccos'
  lowest: Share = 0.0
  unmasked_weight: AtLeast0 = 0.1
  together: Few = 1

  def train(self, tokens, layout, codec, draw):
    share = masked_share(self.schedule, draw.uniform('feed/time'))
    places = layout.tokens // self.together
    count = jnp.round(places * jnp.maximum(share, self.lowest))
    order = draw.permutation('feed/order', places)
    masked = order < jnp.maximum(count, 1)[:, None]
    masked = jnp.repeat(masked, self.together, axis=1)
    weight = jnp.where(masked, 1.0, self.unmasked_weight)
    slots = self._all(tokens, layout, codec, masked)
    return slots, Targets(jnp.asarray(tokens.values), weight)


@dataclasses.dataclass(frozen=True)
class RandomParts(Masked):
  """Masks every part of every token by itself (MaskBit).

  A slot carries the vector of its token, in which a masked part is zeros: the
  channels of a vector are those of its parts, one part after another. The
  probability is the masked share of the schedule at a uniform random time.

  Source: arXiv 2409.16211; markweberdev/maskbit, modeling/bert.py.

  Attributes:
    schedule: one of `process.masking.SCHEDULES`.
    unmasked_weight: loss weight of unmasked parts.
    summed: whether the loss of a token is the sum of those of its parts, not their
      mean (MaskBit's sum_splits).
  """

  schedule: str = 'arccos'
  unmasked_weight: AtLeast0 = 1.0
  summed: bool = False

  masks_parts = True

  def train(self, tokens, layout, codec, draw):
    share = masked_share(self.schedule, draw.uniform('feed/time'))
    shape = jnp.shape(tokens.values)
    share = jnp.clip(share, 1e-6, 1).reshape(-1, *[1] * (len(shape) - 1))
    masked = draw.uniform('feed/mask', shape[1:]) < share
    weight = jnp.where(masked, 1.0, self.unmasked_weight)
    share = weight / math.prod(shape[2:]) if self.summed else None
    slots = self._all(tokens, layout, codec, masked)
    return slots, Targets(jnp.asarray(tokens.values), weight, share)

  def _of_slots(self, tokens, masked, layout, index, codec):
    vectors = codec.embed(tokens)
    if masked is not None:
      masked = masked.reshape(*masked.shape[:2], -1)
      channels = vectors.shape[-1] // masked.shape[-1]
      vectors = jnp.where(jnp.repeat(masked, channels, -1), 0, vectors)
    return carried(vectors, layout, index), None


@dataclasses.dataclass(frozen=True)
class Dropped(Checked, Masked):
  """Masks most tokens, which do not enter the encoder (MAR).

  The masked share has a normal distribution truncated to [lowest, 1], one
  sample per `group` of examples. The masked tokens are random in every example.
  The loss is over masked tokens.

  Source: arXiv 2406.11838; LTH14/mar, models/mar.py.

  Attributes:
    lowest: smallest masked share. It bounds the number of unmasked slots, so
      that shapes are static.
    mean, std: of the normal distribution.
    group: consecutive examples with the same share; the official value is 64,
      the batch of one GPU.
  """

  lowest: Below1 = 0.7
  mean: float = 1.0
  std: Positive = 0.25
  group: Count = 64

  def train(self, tokens, layout, codec, draw):
    count = self.count(draw.uniform('feed/share'), layout.tokens)
    order = draw.permutation('feed/order', layout.tokens)
    # Masks the first tokens of the order.
    masked = jnp.argsort(order, 1) < count[:, None]
    slots = self._all(tokens, layout, codec, masked)
    slots = slots.replace(max_unmasked=layout.slots - self.least(layout.tokens))
    weight = masked.astype(jnp.float32)
    return slots, Targets(jnp.asarray(tokens.values), weight)

  def count(self, uniform, tokens):
    """(b,) int32 number of masked tokens, from (b,) numbers in [0, 1)."""
    first = jnp.arange(len(uniform)) // self.group * self.group
    count = jnp.ceil(tokens * self.share(uniform[first])).astype(jnp.int32)
    return jnp.maximum(count, self.least(tokens))

  def share(self, uniform):
    """(b,) masked shares."""
    law = (self.mean, self.std, self.lowest, 1.0)
    return truncated_normal(uniform, *law)

  def least(self, tokens):
    """The smallest number of masked tokens."""
    return math.ceil(self.lowest * tokens)
