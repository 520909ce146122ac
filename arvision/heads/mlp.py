"""A small MLP that is given every token by itself, with z as its condition."""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.attention import BlockInputs
from arvision.layers.dense import Dense
from arvision.layers.level import LevelEmbedding
from arvision.layers.norm import AffineLayerNorm, LayerNorm, modulate
from arvision.layers.param import normal
from arvision.layers.stack import Stack
from arvision.parallel.constrain import INNER, MODULATION, constrain
from arvision.ranges import Dtype, Few, Width


class ResidualBlock(nn.Module):
  """x + gate * fc2(silu(fc1(norm(x) (1 + scale) + shift))).

  Shift, scale and gate come from the modulation by a linear map that starts at
  zero.

  Attributes:
    width: of x and of the modulation.
    dtype: compute dtype.
  """

  width: Width
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x, drop, inputs, cache=None):
    """x (b, n, w) -> (x, None); `inputs.modulation` is (b, 1 or n, w)."""
    del drop, cache

    def linear(name, features, names, std=None):
      return Dense(
        features, names, kernel_init=normal(std), dtype=self.dtype, name=name
      )

    three = linear('adaln', (3, self.width), ('embed', None, 'mlp'), 0.0)(
      jax.nn.silu(inputs.modulation)
    )
    three = constrain(three, MODULATION)
    shift, scale, gate = (three[..., i, :] for i in range(3))
    y = AffineLayerNorm(dtype=self.dtype, name='norm')(x)
    y = linear('fc1', (self.width,), ('embed', 'mlp'))(
      modulate(y, scale, shift)
    )
    y = constrain(jax.nn.silu(y), INNER)
    y = linear('fc2', (self.width,), ('mlp', 'embed'))(y)
    return x + gate * y, None


class TokenMLP(nn.Module):
  """Residual blocks with adaLN over noisy tokens, each by itself (MAR).

  Heads that take the noise out of single tokens are made of it; they say what
  its outputs are.

  Source: arXiv 2406.11838; LTH14/mar, models/diffloss.py.

  Attributes:
    channels: of a token.
    width: of the MLP.
    depth: residual blocks.
    repeats: times that every token is trained on, each at its own time and
      with its own noise; z is computed once.
    remat, unroll: see `Stack`.
    dtype: compute dtype of the blocks.
  """

  channels: Width
  width: Width
  depth: Few
  repeats: Few = 4
  remat: str = 'none'
  unroll: Few = 1
  dtype: Dtype = jnp.float32

  draws: ClassVar[bool] = True
  # Numbers per channel.
  outputs = 1

  def setup(self):
    def linear(features, names, std=None):
      return Dense(features, names, kernel_init=normal(std))

    self.input = linear((self.width,), (None, 'embed'))
    self.cond = linear((self.width,), ('embed', 'mlp'))
    self.time = LevelEmbedding(self.width)
    self.stack = Stack(
      functools.partial(ResidualBlock, self.width, self.dtype),
      self.depth,
      remat=self.remat,
      unroll=min(self.unroll, self.depth),
    )
    self.norm = LayerNorm()
    self.adaln = linear((2, self.width), ('embed', None, 'mlp'), 0.0)
    self.linear = linear(
      (self.outputs, self.channels), ('embed', None, None), 0.0
    )

  def network(self, z: jax.Array, x: jax.Array, times: jax.Array) -> jax.Array:
    """What the MLP says of tokens with noise.

    Args:
      z: (b, t, 1, d).
      x: (b, t, c) float32; (b, r t, c) with r times as many, all tokens once,
        then again.
      times: (b or 1, 1 or r t), see `layers.level.sinusoid`.

    Returns:
      (b, r t, outputs, c) float32.
    """
    cond = self.cond(z[:, :, 0].astype(jnp.float32))
    cond = jnp.concatenate([cond] * (x.shape[1] // z.shape[1]), 1)
    cond = cond + self.time(times)
    inputs = BlockInputs(mask=None, modulation=cond.astype(self.dtype))
    h, _ = self.stack(self.input(x).astype(self.dtype), inputs)
    two = self.adaln(jax.nn.silu(cond))
    h = self.norm(h.astype(jnp.float32))
    return self.linear(modulate(h, two[..., 1, :], two[..., 0, :]))
