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
from arvision.layouts.base import Layout
from arvision.process.masking import masked_of_groups
from arvision.ranges import AtLeast0, Count
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
    weight = self.weights(layout).astype(np.float32)[None]
    values = jnp.asarray(tokens.values)
    share = weight / math.prod(values.shape[2:]) if self.summed else None
    return slots, Targets(values, weight, share)

  def weights(self, layout: Layout) -> np.ndarray:
    """The weight of every token in the loss, (t,) float64."""
    return areas(layout) ** -self.area_power

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


@dataclasses.dataclass(frozen=True)
class NormalWeights(Residual):
  """The same, with scales weighted by a normal density (HMAR).

  The weight of scale k is the density of a normal distribution at the k-th
  largest side, with mean and standard deviation of all sides. So middle scales
  count most, and coarse ones less than fine ones. A scale divides its weight
  among its tokens.

  Source: arXiv 2506.04421; NVlabs/HMAR, trainer.py, 'lognorm'.
  """

  def weights(self, layout):
    sides = areas_of_scales(layout) ** 0.5
    spread = sides.std(ddof=1) if len(sides) > 1 else 1.0
    density = np.exp(-0.5 * ((sides[::-1] - sides.mean()) / spread) ** 2)
    share = density / density.sum()
    return share[layout.entity_of_token] / areas(layout)


@dataclasses.dataclass(frozen=True)
class MaskedResidual(Residual):
  """Masked tokens of every scale from the smaller scales and the others (HMAR).

  A slot carries the sum of the smaller scales and, unless its token is masked,
  what its own scale adds to it. In training a share of the tokens of every scale
  but the first is masked, and the loss is over masked tokens. In sampling the
  slots of a step without a mask are those of `Residual`. With one, the tokens of
  its scale have to be pushed before.

  What an unmasked token shows is resampled and blended with its neighbours, masked
  ones too, as in the official code: a mask hides a token, but not all of its trace.

  Source: arXiv 2506.04421; NVlabs/HMAR, models/quant.py and mp_trainer.py.

  Attributes:
    group: consecutive examples with the same masked places; the official value is
      the batch of one GPU.
  """

  group: Count = 1

  sees_own = True
  fills = True

  def train(self, tokens, layout, codec, draw):
    slots, targets = super().train(tokens, layout, codec, draw)
    masked = self.masked(draw, layout)
    codes, scale = tokens.given, layout.entity_of_token
    own = [jnp.zeros_like(slots.values[:, scale == 0])]
    for s in range(1, layout.steps):
      own.append(_alone(codec, codes[:, scale == s], s))
    visible = jnp.concatenate(own, 1)
    values = slots.values + jnp.where(masked[..., None], 0, visible)
    # A mean over the masked tokens of an example, then over examples.
    weight = masked / jnp.maximum(masked.sum(1, keepdims=True), 1)
    return (
      slots.replace(values=values, masked=masked),
      Targets(targets.values, weight.astype(jnp.float32)),
    )

  def masked(self, draw, layout: Layout):
    """(b, t) bool: in training, the masked tokens."""
    leader = np.arange(draw.batch) // self.group * self.group
    share = draw.uniform('feed/share')[leader]
    order = draw.uniform('feed/order', (layout.tokens,))[leader]
    scale = layout.entity_of_token
    return masked_of_groups(order, share, scale) & (scale > 0)

  def init(self, batch, layout, codec):
    state = super().init(batch, layout, codec)
    return {**state, 'before': state['canvas']}

  def push(self, state, step, tokens, layout, codec):
    new = super().push(state, step, tokens, layout, codec)
    return {**new, 'before': state['canvas']}

  def slots(self, state, step, layout, codec, masked=None):
    if masked is None:
      return super().slots(state, step, layout, codec)
    masked = masked[:, step.tokens]
    visible = _alone(codec, state['codes'][:, step.tokens], step.s)
    values = codec.view(state['before'], step.s)
    values += jnp.where(masked[..., None], 0, visible)
    return step_slots(values, step, masked=masked)


def _alone(codec, codes, s):
  """What the canvas would be with scale s alone, at the grid of that scale."""
  return codec.view(codec.merge(codec.canvas(len(codes)), codes, s), s)


def areas_of_scales(layout: Layout) -> np.ndarray:
  """(s,) int64 tokens of every scale."""
  return np.bincount(layout.entity_of_token)


def areas(layout: Layout) -> np.ndarray:
  """(t,) float64: tokens of the scale of every token."""
  return areas_of_scales(layout)[layout.entity_of_token].astype(np.float64)
