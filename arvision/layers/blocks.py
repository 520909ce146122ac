"""Transformer blocks and what they are made of."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.dense import Dense
from arvision.layers.norm import modulate
from arvision.layers.param import normal, param
from arvision.parallel.constrain import (
  INNER,
  MODULATION,
  RESIDUAL,
  constrain,
  gather_rows,
)
from arvision.ranges import AtLeast0, Below1, Dtype, Width
from arvision.structs import Template


def _again(f):
  """f, computed again in the backward pass from what it was given.

  Else five arrays of the size of an MLP's inside are kept of a gelu.
  """
  return jax.checkpoint(f, prevent_cse=False)


class GELU(nn.Module):
  """fc2(gelu(fc1 x)), tanh form, with biases.

  Attributes:
    hidden: inner width.
    std, out_std: standard deviations of the two kernels; None: Xavier's.
    dropout: rate on the output.
    inner_dropout: rate between the two maps.
    dtype: compute dtype.
  """

  hidden: Width
  std: AtLeast0 | None = 0.02
  out_std: AtLeast0 | None = 0.02
  dropout: Below1 = 0.0
  inner_dropout: Below1 = 0.0
  dtype: Dtype = jnp.float32

  def activation(self, x):
    return jax.nn.gelu(x, approximate=True)

  @nn.compact
  def __call__(self, x, train=False):
    dense = {'dtype': self.dtype}
    y = Dense(
      (self.hidden,),
      ('embed', 'mlp'),
      kernel_init=normal(self.std),
      name='fc1',
      **dense,
    )(x)
    y = constrain(_again(self.activation)(y), INNER)
    if self.inner_dropout:
      y = nn.Dropout(self.inner_dropout, deterministic=not train)(y)
    y = Dense(
      (x.shape[-1],),
      ('mlp', 'embed'),
      kernel_init=normal(self.out_std),
      name='fc2',
      **dense,
    )(y)
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    return constrain(y, RESIDUAL)


class ExactGELU(GELU):
  """The same with the error function (RAR, TiTok)."""

  def activation(self, x):
    return jax.nn.gelu(x, approximate=False)


class SwiGLU(nn.Module):
  """w2(silu(w1 x) * w3 x) without biases.

  Attributes:
    hidden: inner width.
    std, out_std: standard deviations of the inner and the outer kernels; None:
      Xavier's.
    dropout: rate on the output.
    inner_dropout: rate on what the outer kernel is given.
    dtype: compute dtype.
  """

  hidden: Width
  std: AtLeast0 | None = 0.02
  out_std: AtLeast0 | None = 0.02
  dropout: Below1 = 0.0
  inner_dropout: Below1 = 0.0
  dtype: Dtype = jnp.float32

  bias = False

  def activation(self, x):
    return jax.nn.silu(x)

  @nn.compact
  def __call__(self, x, train=False):
    gate, up = (
      Dense(
        (self.hidden,),
        ('embed', 'mlp'),
        bias=self.bias,
        kernel_init=normal(self.std),
        dtype=self.dtype,
        name=name,
      )(x)
      for name in ('w1', 'w3')
    )
    gated = _again(lambda gate, up: self.activation(gate) * up)
    y = constrain(gated(gate, up), INNER)
    y = nn.Dropout(self.inner_dropout, deterministic=not train)(y)
    y = Dense(
      (x.shape[-1],),
      ('mlp', 'embed'),
      bias=self.bias,
      kernel_init=normal(self.out_std),
      dtype=self.dtype,
      name='w2',
    )(y)
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    return constrain(y, RESIDUAL)


class GeGLU(SwiGLU):
  """w2(gelu(w1 x) * w3 x) with biases, the error function's gelu.

  What timm's SwiGLU computes where a block hands it its own activation, as xAR
  and FlowAR do.
  """

  bias = True

  def activation(self, x):
    return jax.nn.gelu(x, approximate=False)


def gated_init(std: float, gate: float, rest: float, gates: int):
  """Normal numbers, columns of the gates and of the rest shrunk apart."""

  def init(key, shape, dtype=jnp.float32):
    kernel = jax.random.normal(key, shape, dtype) * std
    parts = kernel.reshape(shape[0], -1, shape[0])
    parts = parts.at[:, :gates].multiply(gate).at[:, gates:].multiply(rest)
    return parts.reshape(shape)

  return init


class AdaLN(nn.Module):
  """Six modulations of a block from the condition.

  Order of the chunks: gate and gate, scale and scale, shift and shift, of
  attention and MLP each (VAR's gamma1, gamma2, scale1, scale2, shift1, shift2).

  Attributes:
    width: d.
    std: standard deviation of the kernel before the factors below; None: Xavier's
      numbers, without factors.
    gate: factor on the columns of the gates (VAR's alng).
    rest: factor on all other columns (VAR's aln).
    dtype: compute dtype.
  """

  width: Width
  std: AtLeast0 | None = 0.02
  gate: AtLeast0 = 1e-3
  rest: AtLeast0 = 0.5
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, modulation):
    """(b, 1 or n, d) -> (b, 1 or n, 6, d)."""
    init = normal(None)
    if self.std is not None:
      init = gated_init(self.std, self.gate, self.rest, 2)
    six = Dense(
      (6, self.width),
      ('embed', None, 'mlp'),
      kernel_init=init,
      dtype=self.dtype,
      name='linear',
    )(jax.nn.silu(modulation))
    return constrain(six, MODULATION)


class SharedAdaLN(nn.Module):
  """A block's own offset to modulations that all blocks share (VAR-d36).

  Attributes:
    width: d.
    gate: factor on the gates at the start (VAR's alng).
    rest: factor on scales and shifts at the start (VAR's aln).
    dtype: compute dtype.
  """

  width: Width
  gate: AtLeast0 = 1e-3
  rest: AtLeast0 = 0.5
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, shared):
    """(b, 1 or n, 6, d) -> the same plus the block's offset."""
    factors = jnp.array([self.gate] * 2 + [self.rest] * 4)[:, None]

    def init(key, shape, dtype=jnp.float32):
      return factors * normal(self.width**-0.5)(key, shape, dtype)

    offset = param(self, 'offset', init, (None, 'embed'), (6, self.width))
    return (shared + offset).astype(self.dtype)


class Block(nn.Module):
  """A pre-norm transformer block, modulated by adaLN or not.

  Attributes:
    attention, mlp, norm: templates.
    adaln: template of the modulation, or None.
  """

  attention: Template
  mlp: Template
  norm: Template
  adaln: Template | None = None

  @nn.compact
  def __call__(self, x, drop, rest, cache=None):
    """x (b, n, d) -> (x, cache).

    Args:
      x: (b, n, d).
      drop: () float32 drop-path rate of this layer, or None for none.
      rest: `BlockInputs` that all layers share.
      cache: `Cache` of this layer or None.
    """
    gates = (1, 1)
    first, second = self.norm(name='norm1'), self.norm(name='norm2')
    norms = (first, second)
    if self.adaln is not None:
      six = self.adaln(name='adaln')(rest.modulation)
      if rest.rows is not None:
        six = gather_rows(six, rest.rows)
      g1, g2, s1, s2, t1, t2 = (six[..., i, :] for i in range(6))
      gates = (g1, g2)
      norms = (
        lambda x: modulate(first(x), s1, t1),
        lambda x: modulate(second(x), s2, t2),
      )
    y, cache = self.attention(name='attention')(
      norms[0](x),
      rest.mask,
      rest.rotation,
      cache,
      rest.start,
      rest.extent,
      rest.train,
    )
    x = x + self._drop(y * gates[0], drop, rest.train)
    y = self.mlp(name='mlp')(norms[1](x), rest.train)
    x = x + self._drop(y * gates[1], drop, rest.train)
    return x, cache

  def _drop(self, y, rate, train):
    """Drops the branch of whole examples (stochastic depth)."""
    if rate is None or not train:
      return y
    shape = (y.shape[0],) + (1,) * (y.ndim - 1)
    keep = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, shape)
    return jnp.where(keep, y / (1 - rate), 0).astype(y.dtype)


class PostNormBlock(Block):
  """A transformer block with norms after the sums (BERT), not modulated."""

  @nn.compact
  def __call__(self, x, drop, rest, cache=None):
    y, cache = self.attention(name='attention')(
      x,
      rest.mask,
      rest.rotation,
      cache,
      rest.start,
      rest.extent,
      rest.train,
    )
    x = self.norm(name='norm1')(x + self._drop(y, drop, rest.train))
    y = self.mlp(name='mlp')(x, rest.train)
    x = self.norm(name='norm2')(x + self._drop(y, drop, rest.train))
    return x, cache
