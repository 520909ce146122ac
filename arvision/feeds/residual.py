"""Next scale: every scale is shown the sum of all smaller ones."""

import dataclasses

import jax.numpy as jnp

from arvision.structs import Slots, Tokens


@dataclasses.dataclass(frozen=True)
class Residual:
  """The residual pyramid of a multi-scale tokenizer (VAR).

  The codec adds scales to a canvas (`merge`) and shrinks the canvas to the
  grid of the next scale (`view`). The first scale is shown nothing.

  Source: FoundationVision/VAR, idxBl_to_var_input.
  """

  sees_own = False

  def train(self, tokens, layout, codec, draw):
    codes = jnp.asarray(tokens.values)
    canvas = codec.canvas(codes.shape[0])
    first = layout.runs[0].step(0)
    values = [jnp.zeros((*codes.shape[:1], len(first.index), canvas.shape[-1]))]
    for s in range(layout.steps - 1):
      canvas = codec.merge(canvas, codes[:, layout.entity_of_token == s], s)
      values.append(codec.view(canvas, s + 1))
    return Slots(
      values=jnp.concatenate(values, axis=1),
      index=layout.index,
      extent=layout.slots,
      present=layout.present,
      targets=codes,
      weight=jnp.ones((1, layout.tokens), jnp.float32),
    )

  def init(self, batch, layout, codec):
    codes = jnp.zeros((batch, layout.tokens), jnp.int32)
    return {'codes': codes, 'canvas': codec.canvas(batch)}

  def slots(self, state, step, layout, codec):
    canvas = state['canvas']
    if step.s == 0:
      shape = (canvas.shape[0], len(step.index), canvas.shape[-1])
      values = jnp.zeros(shape)
    else:
      values = codec.view(canvas, step.s)
    return Slots(
      values=values,
      index=step.index,
      extent=step.extent,
      present=step.readout >= 0,
    )

  def push(self, state, step, tokens, layout, codec):
    return {
      'codes': state['codes'].at[:, step.tokens].set(tokens),
      'canvas': codec.merge(state['canvas'], tokens, step.s),
    }

  def finish(self, state):
    return Tokens(state['codes'])
