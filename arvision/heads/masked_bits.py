"""A distribution over the parts of a token, unmasked in a few steps (BAR)."""

import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from arvision.heads.base import Guide
from arvision.layers.attention import BlockInputs
from arvision.layers.blocks import BiasedSwiGLU
from arvision.layers.dense import Dense, Embed
from arvision.layers.norm import RMSNorm, modulate
from arvision.layers.param import fixed, normal
from arvision.layers.stack import Stack, unstack
from arvision.metrics import Term
from arvision.parallel.constrain import MODULATION, constrain
from arvision.process.masking import NoisyLogits, least_sure
from arvision.random import Draw
from arvision.ranges import (
  AtLeast0,
  Below1,
  Count,
  Dtype,
  Few,
  Natural,
  Positive,
  Width,
)
from arvision.structs import Query


class GatedBlock(nn.Module):
  """x + gate * swiglu(norm(x) (1 + scale) + shift).

  Shift, scale and gate come from the modulation by a linear map that starts at
  zero.

  Attributes:
    hidden: inner width.
    epsilon: of the norm.
    dtype: compute dtype.
  """

  hidden: Width
  epsilon: Positive = 1e-6
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x, drop, inputs, cache=None):
    """x (b, n, w) -> (x, None); `inputs.modulation` is (b, n, w)."""
    del drop, cache
    three = Dense(
      (3, x.shape[-1]),
      ('embed', None, 'mlp'),
      kernel_init=normal(0.0),
      dtype=self.dtype,
      name='adaln',
    )(jax.nn.silu(inputs.modulation))
    three = constrain(three, MODULATION)
    shift, scale, gate = (three[..., i, :] for i in range(3))
    y = RMSNorm(epsilon=self.epsilon, dtype=self.dtype, name='norm')(x)
    mlp = BiasedSwiGLU(self.hidden, dtype=self.dtype, name='mlp')
    return x + gate * mlp(modulate(y, scale, shift)), None


class FourierEmbedding(nn.Module):
  """fc2(silu(fc1 [sin, cos] of 2 pi x w)), w fixed random frequencies.

  Attributes:
    width: of the vectors.
    frequencies: how many.
  """

  width: Width
  frequencies: Width = 256

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """(...) float32 -> (..., width) float32."""
    w = fixed(self, 'w', normal(1.0), (None,), (self.frequencies,))
    angle = 2 * jnp.pi * x.astype(jnp.float32)[..., None] * w
    x = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
    x = jax.nn.silu(Dense((self.width,), (None, 'mlp'), name='fc1')(x))
    return Dense((self.width,), ('mlp', 'embed'), name='fc2')(x)


class MaskedBits(nn.Module):
  """An MLP predicts the masked parts of a token from the others and from z.

  Training masks a random share of the parts of every token. Sampling starts from
  masked parts alone and keeps, step by step, those of the largest noisy logits.
  The noise falls linearly; its scale is `sampler.logits_filter.temperature`.

  Source: arXiv 2602.09024; amazon-far/BAR, modeling/mbm_head.py.

  Attributes:
    channels: parts of a token.
    levels: values of a part: 2 of bits.
    width: of the MLP.
    depth: residual blocks.
    hidden: inner width of the blocks.
    allocation: parts that every step of sampling keeps; they add up to
      `channels`.
    order: of the parts in sampling. A step then draws the next ones from their
      probabilities, without any noise besides: with one part per step, this is the
      chain rule over parts. None: the parts of the largest noisy logits first.
    spread: the unmasked share in training is sigmoid(spread * normal).
    unmasked: weight of the loss of parts that are not masked.
    remat, unroll: see `Stack`.
    dtype: compute dtype of the blocks.
  """

  channels: Width
  levels: Count
  width: Width
  depth: Few
  hidden: Width
  allocation: tuple[Few, ...]
  order: tuple[Natural, ...] | None = None
  spread: AtLeast0 = 0.8
  unmasked: Below1 = 0.1
  remat: str = 'none'
  unroll: Few = 1
  dtype: Dtype = jnp.float32

  draws: ClassVar[bool] = True
  adjustable: ClassVar[tuple[str, ...]] = (
    'allocation',
    'order',
    'spread',
    'unmasked',
  )

  def setup(self):
    if sum(self.allocation) != self.channels:
      raise ValueError(
        f'config.head.allocation={self.allocation} adds up to '
        f'{sum(self.allocation)}, wanted config.head.channels={self.channels}'
      )
    if self.order and sorted(self.order) != [*range(self.channels)]:
      raise ValueError(
        f'config.head.order={self.order}: wanted the numbers 0 to '
        f'{self.channels - 1} of config.head.channels={self.channels}, or None'
      )
    norm = functools.partial(RMSNorm, epsilon=1e-6)
    each = -(-self.width // self.channels)
    self.cond = Dense((self.width,), ('embed', 'mlp'))
    self.time = FourierEmbedding(self.width)
    self.parts = Embed(self.levels + 1, each)
    self.input = Dense((self.width,), (None, 'embed'))
    self.input_norm, self.norm = norm(), norm()
    self.stack = Stack(
      functools.partial(GatedBlock, self.hidden, dtype=self.dtype),
      self.depth,
      remat=self.remat,
      unroll=min(self.unroll, self.depth),
    )
    self.adaln = Dense(
      (2, self.width), ('embed', None, 'mlp'), kernel_init=normal(0.0)
    )
    self.linear = Dense((self.channels, self.levels), ('embed', None, None))

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """Logits of all parts, given those that are not masked.

    Args:
      z: (b, t, 1, d).
      query: `values` (b, t, parts) int32, `levels` for a masked part; `level`
        (b or 1, t or 1) the masked share.

    Returns:
      (b, t, parts, levels) float32.
    """
    values = jnp.asarray(query.values)
    x = self.input(self.parts(values).reshape(*values.shape[:2], -1))
    x = self.input_norm(x)
    cond = self.time(jnp.asarray(query.level)) + self.condition(z)
    cond = jax.nn.silu(cond)
    inputs = BlockInputs(mask=None, modulation=cond.astype(self.dtype))
    h, _ = self.stack(x.astype(self.dtype), inputs)
    two = self.adaln(jax.nn.silu(cond))
    h = self.norm(h.astype(jnp.float32))
    return self.linear(modulate(h, two[..., 0, :], two[..., 1, :]))

  def condition(self, z: jax.Array) -> jax.Array:
    """z (b, t, 1, d) -> (b, t, w) float32."""
    return self.cond(z[:, :, 0].astype(jnp.float32))

  def masking(
    self, batch: tuple[int, ...], draw: Draw
  ) -> tuple[jax.Array, jax.Array]:
    """Which parts are masked in training.

    Args:
      batch: (b, t).
      draw: keys of the b examples.

    Returns:
      (b, t) float32 share, and (b, t, parts) bool, True = masked.
    """
    count = self.channels
    normal = draw.normal('head/time', batch[1:])
    share = 1 - jax.nn.sigmoid(self.spread * normal)
    share = jnp.clip(share, 1 / count, 1.0)
    number = jnp.maximum(jnp.round(count * share), 1)
    order = draw.uniform('head/mask', (*batch[1:], count))
    return share, jnp.argsort(order, -1) < number[..., None]

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[Term, dict[str, jax.Array]]:
    """Cross entropy in nats over the parts; masked ones weigh more.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, parts) int32.
      draw: keys of the b examples.
      query: see `field`; its values and level are set here.

    Returns:
      (b, t) weighted means of losses with the sums of their weights, and
      per-token metrics (b, t).
    """
    share, masked = self.masking(targets.shape[:2], draw)
    shown = jnp.where(masked, self.levels, targets)
    logits = self.field(z, query.replace(values=shown, level=share))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    weight = jnp.where(masked, 1.0, self.unmasked)
    total = jnp.sum(weight, -1)
    loss = jnp.sum(weight * loss, -1) / total
    right = masked & (jnp.argmax(logits, -1) == targets)
    accuracy = jnp.sum(right, -1) / jnp.sum(masked, -1)
    return Term(loss, total), {'masked_part_accuracy': accuracy}

  def sample(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> jax.Array:
    """Parts (b, t, parts) int32 of an entity, see `unmask`."""
    return self.unmask(z, draw, guide, sampling, query)[0]

  def unmask(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> tuple[jax.Array, jax.Array]:
    """Parts of an entity, in as many steps as `allocation`.

    Args:
      z: (b or 2b, t, 1, d); conditional rows, then null rows.
      draw: keys of the b examples; `fold(k)` is that of step k.
      guide: merges the two halves of the logits.
      sampling: its `filter` is used, and its temperature scales the noise.
      query: of the tokens.

    Returns:
      (b, t, parts) int32, and the guided logits of all steps
      (steps, b, t, parts, levels) float32.
    """
    count, steps = self.channels, len(self.allocation)
    halves = z.shape[0] // draw.batch
    left = count - np.cumsum(self.allocation)
    share = np.array([1, *(left[:-1] / count)], np.float32)
    head, variables = self.unbind()
    variables = {'params': unstack(variables['params'])}

    def advance(values, step):
      k, share, left = step
      both = jnp.concatenate([values] * halves)
      at = query.replace(values=both, level=share[None, None])
      logits = guide(head.apply(variables, z, at, method='field'))
      masked = values == self.levels
      if self.order:
        found = sampling(logits, draw.fold(k))
        again = jnp.argsort(np.array(self.order)) >= count - left
      else:
        noise = None if sampling.temperature == 0 else 1 - k / steps
        policy = NoisyLogits(1.0)
        found, sure = policy(sampling.filter(logits), draw.fold(k), noise)
        sure = jnp.where(masked, sure, jnp.inf).reshape(-1, count)
        again = least_sure(sure, jnp.full(len(sure), left))
        again = again.reshape(found.shape)
      found = jnp.where(masked, found, values)
      return jnp.where(again, self.levels, found), logits

    shape = (draw.batch, z.shape[1], count)
    start = jnp.full(shape, self.levels, jnp.int32)
    every = jnp.arange(steps), jnp.asarray(share), jnp.asarray(left)
    return jax.lax.scan(advance, start, every)
