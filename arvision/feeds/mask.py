"""Tokens of which some are hidden (MaskGIT, TiTok's generator)."""

import dataclasses

import jax.numpy as jnp

from arvision.feeds.base import carried
from arvision.process.masking import hidden_share
from arvision.structs import Slots, Tokens


@dataclasses.dataclass(frozen=True)
class Mask:
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
  lowest: float = 0.0
  shown_weight: float = 0.1
  sees_own = True

  def train(self, tokens, layout, codec, draw):
    values = jnp.asarray(tokens.values)
    share = hidden_share(self.schedule, draw.uniform('time'))
    count = jnp.round(layout.tokens * jnp.maximum(share, self.lowest))
    order = draw.permutation('order', layout.tokens)
    hole = order < jnp.maximum(count, 1)[:, None]
    return self.shown(values, hole, layout).replace(
      targets=values,
      weight=jnp.where(hole, 1.0, self.shown_weight),
    )

  def shown(self, values, hole, layout) -> Slots:
    """The slots of tokens (b, t) int32 of which `hole` (b, t) are hidden."""
    return Slots(
      values=carried(values, layout.token),
      hole=carried(hole, layout.token).astype(bool),
      index=layout.index,
      extent=layout.slots,
      present=layout.present,
    )

  def finish(self, state):
    return Tokens(state)
