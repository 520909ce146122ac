"""Next-scale prediction from the sum of all smaller scales."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from arvision.feeds.base import (
  TokenState,
  all_slots,
  put,
  step_slots,
)
from arvision.ranges import AtLeast0
from arvision.structs import Targets, Tokens


@dataclasses.dataclass(frozen=True)
class Residual(TokenState):
  """The residual pyramid of a multi-scale tokenizer (VAR, Infinity).

  The codec adds a scale to the canvas (`merge`) and downsamples the canvas to
  the grid of the next scale (`view`). The input of the first scale is zeros.

  Where the tokens that are shown are not the targets, the sum is that of the shown
  ones (`tokenizers.bitwise`).

  Source: FoundationVision/VAR, idxBl_to_var_input.

  Attributes:
    area_power: a token of a scale of h x w weighs 1 / (h w)^area_power in the
      loss: 0 for equal tokens, 1 for equal scales.
    summed: whether the loss of a token is the sum of those of its parts, not their
      mean (Infinity's bitloss_type).
  """

  area_power: AtLeast0 = 0.0
  summed: bool = False

  def train(self, tokens, layout, codec, draw):
    codes = tokens.given
    canvas, values = codec.canvas(codes.shape[0]), []
    for s in range(layout.steps - 1):
      canvas = codec.merge(canvas, codes[:, layout.entity_of_token == s], s)
      values.append(codec.view(canvas, s + 1))
    channels = (values or [canvas])[0].shape[-1]
    first = len(layout.runs[0].step(0).index)
    values.insert(0, jnp.zeros((len(canvas), first, channels)))
    slots = all_slots(jnp.concatenate(values, axis=1), layout)
    areas = np.bincount(layout.entity_of_token)[layout.entity_of_token]
    weight = (areas**-self.area_power).astype(np.float32)[None]
    values = jnp.asarray(tokens.values)
    share = weight / math.prod(values.shape[2:]) if self.summed else None
    return slots, Targets(values, weight, share)

  def init(self, batch, layout, codec):
    codes = super().init(batch, layout, codec)
    return {'codes': codes, 'canvas': codec.canvas(batch)}

  def slots(self, state, step, layout, codec):
    return step_slots(codec.view(state['canvas'], step.s), step)

  def push(self, state, step, tokens, layout, codec):
    return {
      'codes': put(state['codes'], step, tokens),
      'canvas': codec.merge(state['canvas'], tokens, step.s),
    }

  def finish(self, state):
    return Tokens(state['codes'])
