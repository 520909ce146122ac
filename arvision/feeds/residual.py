"""Next-scale prediction: the input of a scale is the sum of all smaller ones."""

import dataclasses

import jax.numpy as jnp

from arvision.feeds.base import (
  TokenState,
  all_slots,
  all_targets,
  put,
  step_slots,
)
from arvision.structs import Tokens


@dataclasses.dataclass(frozen=True)
class Residual(TokenState):
  """The residual pyramid of a multi-scale tokenizer (VAR).

  The codec adds a scale to the canvas (`merge`) and downsamples the canvas to the
  grid of the next scale (`view`). The input of the first scale is zeros.

  Source: FoundationVision/VAR, idxBl_to_var_input.
  """

  def train(self, tokens, layout, codec, draw):
    codes = tokens.given
    canvas = codec.canvas(codes.shape[0])
    values = [_zeros(canvas, layout.runs[0].step(0))]
    for s in range(layout.steps - 1):
      canvas = codec.merge(canvas, codes[:, layout.entity_of_token == s], s)
      values.append(codec.view(canvas, s + 1))
    slots = all_slots(jnp.concatenate(values, axis=1), layout)
    return slots, all_targets(jnp.asarray(tokens.values))

  def init(self, batch, layout, codec):
    codes = super().init(batch, layout, codec)
    return {'codes': codes, 'canvas': codec.canvas(batch)}

  def slots(self, state, step, layout, codec):
    canvas = state['canvas']
    if step.s == 0:
      return step_slots(_zeros(canvas, step), step)
    return step_slots(codec.view(canvas, step.s), step)

  def push(self, state, step, tokens, layout, codec):
    return {
      'codes': put(state['codes'], step, tokens),
      'canvas': codec.merge(state['canvas'], tokens, step.s),
    }

  def finish(self, state):
    return Tokens(state['codes'])


def _zeros(canvas, step):
  """(b, e, c) for the first scale."""
  return jnp.zeros((len(canvas), len(step.index), canvas.shape[-1]))
