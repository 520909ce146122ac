"""Masked-token prediction (MaskGIT, TiTok's generator, MAR, MaskBit)."""

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.errors import ConfigError
from arvision.feeds.base import TokenState, all_slots, carried, step_slots
from arvision.layouts.base import take
from arvision.process.masking import (
  count_shares,
  masked_share,
  share_rate,
  truncated_normal,
)
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
class RandomMask(Checked, Masked):
  """Masks a random share of the tokens of every example (MaskGIT).

  The share is that of the masking schedule at a uniform random time. With the
  weights of the ELBO, the mean loss is a bound of the negative log likelihood of a
  token, whatever the schedule.

  Source: arXiv 2202.04200; bytedance/1d-tokenizer, modeling/maskgit.py. ELBO: arXiv
    2409.02908.

  Attributes:
    schedule: one of `process.masking.SCHEDULES`.
    lowest: smallest masked share.
    unmasked_weight: loss weight of unmasked tokens.
    together: consecutive tokens that are masked as one, the ids of a place.
    weighting: of masked tokens: 'constant', the mean over masked tokens, or 'elbo',
      which wants `lowest` and `unmasked_weight` of 0.

  Raises:
    ConfigError: see `weighting`.
  """

  schedule: str = 'arccos'
  lowest: Share = 0.0
  unmasked_weight: AtLeast0 = 0.1
  together: Few = 1
  weighting: Literal['constant', 'elbo'] = 'constant'

  def __post_init__(self):
    super().__post_init__()
    if self.weighting == 'elbo' and (self.lowest or self.unmasked_weight):
      raise ConfigError(
        f"config.feed.weighting='elbo' with lowest={self.lowest} and "
        f'unmasked_weight={self.unmasked_weight}: wanted 0 of both'
      )

  def train(self, tokens, layout, codec, draw):
    share = masked_share(self.schedule, draw.uniform('feed/time'))
    places = layout.tokens // self.together
    count = jnp.round(places * jnp.maximum(share, self.lowest))
    order = draw.permutation('feed/order', places)
    count = jnp.maximum(count, 1)[:, None]
    masked = jnp.repeat(order < count, self.together, axis=1)
    weight = jnp.where(masked, 1.0, self.unmasked_weight)
    each = None
    if self.weighting == 'elbo':
      # 1 / (count P(count)); n / count where all counts are as likely.
      chance = count_shares(self.schedule, places).astype(np.float32)
      weight /= count * jnp.asarray(chance)[count.astype(jnp.int32) - 1]
      each = jnp.ones_like(weight)
    slots = self._all(tokens, layout, codec, masked)
    return slots, Targets(jnp.asarray(tokens.values), weight, each)


@dataclasses.dataclass(frozen=True)
class Absorbing(Checked, Masked):
  """Masks every token by itself: absorbing diffusion in continuous time (SMDM).

  A token is masked with the probability p of the schedule at a uniform random
  time, the noise level of the slots. The loss of a masked token weighs the rate of p
  over p: the mean over all tokens is a bound of the negative log likelihood of a
  token (ELBO), whatever the schedule.

  Source: arXiv 2410.18514; ML-GSAI/SMDM, pretrain/train_mdm.py (linear).

  Attributes:
    schedule: one of `process.masking.SCHEDULES`.
    lowest: smallest p.
    group: consecutive examples whose times are spread evenly (arXiv 2107.00630); 1
      for independent times.
  """

  schedule: str = 'linear'
  lowest: Below1 = 1e-3
  group: Count = 1

  def train(self, tokens, layout, codec, draw):
    time = self.times(draw.uniform('feed/time'))
    share = masked_share(self.schedule, 1 - time)
    p = ((1 - self.lowest) * share + self.lowest)[:, None]
    masked = draw.uniform('feed/mask', (layout.tokens,)) < p
    weight = share_rate(self.schedule, 1 - time)[:, None] / p
    weight = jnp.where(masked, weight, 0.0)
    slots = self._all(tokens, layout, codec, masked).replace(level=p)
    each = jnp.ones_like(weight)
    return slots, Targets(jnp.asarray(tokens.values), weight, each)

  def times(self, uniform):
    """(b,) times in [0, 1), from (b,) numbers in [0, 1)."""
    number = jnp.arange(len(uniform))
    first = number // self.group * self.group
    return (uniform[first] + (number - first) / self.group) % 1


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
