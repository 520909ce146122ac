"""Tokens of which some are hidden (MaskGIT, TiTok's generator, MAR)."""

import dataclasses
import math

import jax.numpy as jnp

from arvision.build import Checked
from arvision.feeds.base import carried, entering, unknown
from arvision.process.masking import hidden_share, truncated_normal
from arvision.ranges import AtLeast0, Below1, Count, Positive, Share
from arvision.structs import Slots, Tokens


class Holes:
  """Every slot carries its own token or a hole."""

  sees_own = True

  def init(self, batch, layout, codec):
    return unknown(batch, layout, codec)

  def shown(self, values, hole, layout, codec=None) -> Slots:
    """The slots of tokens (b, t) or (b, t, c) of which some are hidden.

    Args:
      values: of all tokens; what stands at the hidden ones is not read.
      hole: (b, t) bool, True = hidden.
      layout: static.
      codec: the bound tokenizer; tokens of levels want one.
    """
    return Slots(
      values=carried(entering(values, codec), layout.token),
      hole=jnp.where(layout.token >= 0, hole[:, layout.token], False),
      index=layout.index,
      extent=layout.slots,
      present=layout.present,
    )

  def finish(self, state):
    return Tokens(state)


@dataclasses.dataclass(frozen=True)
class Mask(Holes):
  """Every slot carries its own token or a hole.

  In training every example has a share of hidden tokens that is drawn anew:
  what a schedule hides at a random moment.

  Source: arXiv 2202.04200; bytedance/1d-tokenizer, modeling/maskgit.py.

  Attributes:
    schedule: of `process.masking`.
    lowest: smallest share that is hidden.
    shown_weight: weight of the loss of tokens that are not hidden.
  """

  schedule: str = 'arccos'
  lowest: Share = 0.0
  shown_weight: AtLeast0 = 0.1

  def train(self, tokens, layout, codec, draw):
    values = jnp.asarray(tokens.values)
    share = hidden_share(self.schedule, draw.uniform('feed/time'))
    count = jnp.round(layout.tokens * jnp.maximum(share, self.lowest))
    order = draw.permutation('feed/order', layout.tokens)
    hole = order < jnp.maximum(count, 1)[:, None]
    return self.shown(values, hole, layout, codec).replace(
      targets=values,
      weight=jnp.where(hole, 1.0, self.shown_weight),
    )


@dataclasses.dataclass(frozen=True)
class Dropped(Checked, Holes):
  """Most tokens are hidden, and do not enter the network at all (MAR).

  A share of hidden tokens is drawn from a normal law cut off at `lowest` and at
  1, one for every `group` of examples; which ones they are, for every example.
  The loss is that of the hidden tokens.

  Source: arXiv 2406.11838; LTH14/mar, models/mar.py.

  Attributes:
    lowest: smallest share that is hidden. So the number of rows that enter is
      bounded, and shapes are static.
    mean, std: of the normal law.
    group: examples in a row that have the same share; published are 64, those
      of a GPU.
  """

  lowest: Below1 = 0.7
  mean: float = 1.0
  std: Positive = 0.25
  group: Count = 64

  def train(self, tokens, layout, codec, draw):
    values = jnp.asarray(tokens.values)
    hidden = self.count(draw.uniform('feed/share'), layout.tokens)
    order = draw.permutation('feed/order', layout.tokens)
    # The first of the order are hidden.
    hole = jnp.argsort(order, 1) < hidden[:, None]
    at_least = math.ceil(self.lowest * layout.tokens)
    return self.shown(values, hole, layout, codec).replace(
      visible=layout.slots - at_least,
      targets=values,
      weight=hole.astype(jnp.float32),
    )

  def count(self, uniform, tokens):
    """(b,) int32 how many are hidden, from uniform numbers (b,) in [0, 1)."""
    first = jnp.arange(len(uniform)) // self.group * self.group
    law = (self.mean, self.std, self.lowest, 1.0)
    share = truncated_normal(uniform[first], *law)
    count = jnp.ceil(tokens * share).astype(jnp.int32)
    return jnp.maximum(count, math.ceil(self.lowest * tokens))
