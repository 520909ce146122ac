"""Transformer blocks and what they are made of."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.attention import BlockInputs
from arvision.layers.cache import Cache
from arvision.layers.dense import Dense
from arvision.layers.norm import RMSNorm, modulate
from arvision.layers.param import gated, normal, param
from arvision.parallel.constrain import (
  INNER,
  MODULATION,
  RESIDUAL,
  constrain,
  gather_rows,
)
from arvision.ranges import AtLeast0, Below1, Dtype, Few, Width
from arvision.structs import Template


def _again(f):
  """f, recomputed in the backward pass.

  Otherwise a gelu keeps five arrays as wide as the inside of the MLP.
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
    inner_dropout: rate before the outer kernel.
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


class BiasedSwiGLU(SwiGLU):
  """The same with biases (BAR)."""

  bias = True


class GeGLU(SwiGLU):
  """w2(gelu(w1 x) * w3 x) with biases, the error function's gelu.

  timm's SwiGLU with the activation of xAR and FlowAR.
  """

  bias = True

  def activation(self, x):
    return jax.nn.gelu(x, approximate=False)


# Gate, scale and shift of a sub-layer, (b, 1 or n, d) each.
Modulation = tuple[jax.Array, jax.Array, jax.Array]


def of_sublayers(chunks: jax.Array, rows: Any = None) -> list[Modulation]:
  """The modulation of every sub-layer of a block.

  Args:
    chunks: (b, 1 or n, 3 l, d): the gates of l sub-layers, then their scales, then
      their shifts.
    rows: see `BlockInputs`.
  """
  if rows is not None:
    chunks = gather_rows(chunks, rows)
  count = chunks.shape[-2] // 3
  at = lambda i: chunks[..., i, :]
  return [(at(i), at(i + count), at(i + 2 * count)) for i in range(count)]


class AdaLN(nn.Module):
  """Gates, scales and shifts of a block's sub-layers from the condition.

  With two sub-layers, attention and MLP, these are VAR's gamma1, gamma2, scale1,
  scale2, shift1 and shift2.

  Attributes:
    width: d.
    sublayers: how many are modulated.
    std: standard deviation of the kernel before the factors below; None: Xavier's
      numbers, without factors.
    gate: factor on the columns of the gates (VAR's alng).
    rest: factor on all other columns (VAR's aln).
    dtype: compute dtype.
  """

  width: Width
  sublayers: Few = 2
  std: AtLeast0 | None = 0.02
  gate: AtLeast0 = 1e-3
  rest: AtLeast0 = 0.5
  dtype: Dtype = jnp.float32

  @property
  def small_gates(self) -> int:
    """Number of leading gates that `gate` applies to."""
    return self.sublayers

  @nn.compact
  def __call__(self, inputs: BlockInputs) -> list[Modulation]:
    """The modulation of every sub-layer, from `inputs.modulation`."""
    init = normal(None)
    if self.std is not None:
      init = gated(self.std, self.gate, self.rest, self.small_gates)
    chunks = Dense(
      (3 * self.sublayers, self.width),
      ('embed', None, 'mlp'),
      kernel_init=init,
      dtype=self.dtype,
      name='linear',
    )(jax.nn.silu(inputs.modulation))
    return of_sublayers(constrain(chunks, MODULATION), inputs.rows)


class SharedModulation(nn.Module):
  """Six modulations that all blocks share (VAR-d36's shared_ada_lin).

  Attributes:
    width: d.
    std: standard deviation of the kernel at the start.
  """

  width: Width
  std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, modulation):
    """(b, 1 or n, d) -> (b, 1 or n, 6, d) float32."""
    linear = Dense(
      (6, self.width),
      ('embed', None, 'mlp'),
      kernel_init=normal(self.std),
      name='linear',
    )
    return linear(jax.nn.silu(modulation))


class SharedAdaLN(nn.Module):
  """A block's own offset to `SharedModulation` (VAR-d36).

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
  def __call__(self, inputs: BlockInputs) -> list[Modulation]:
    """The modulation of both sub-layers, from (b, 1 or n, 6, d)."""
    factors = jnp.array([self.gate] * 2 + [self.rest] * 4)[:, None]

    def init(key, shape, dtype=jnp.float32):
      return factors * normal(self.width**-0.5)(key, shape, dtype)

    offset = param(self, 'offset', init, (None, 'embed'), (6, self.width))
    chunks = (inputs.modulation + offset).astype(self.dtype)
    return of_sublayers(chunks, inputs.rows)


class SplitAdaLN(nn.Module):
  """Noise levels alone modulate the attention, the whole condition the MLP.

  Source: OliverRensu/FlowAR, the flow heads of its larger models.

  Attributes:
    width: d.
    std: standard deviation of the kernels at the start; None: Xavier's.
    dtype: compute dtype.
  """

  width: Width
  std: AtLeast0 | None = 0.02
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, inputs: BlockInputs) -> list[Modulation]:
    """The modulation of both sub-layers; `inputs` has a `level`."""

    def modulation(name, vector):
      one = AdaLN(
        self.width, sublayers=1, std=self.std, dtype=self.dtype, name=name
      )
      return one(inputs.replace(modulation=vector))

    return [
      *modulation('attention', inputs.level),
      *modulation('mlp', inputs.modulation),
    ]


class Block(nn.Module):
  """A pre-norm transformer block: attention, cross attention if any, MLP.

  Attributes:
    attention, mlp, norm: templates.
    adaln: template of the modulation of attention and MLP, or None.
    cross: template of an attention to `BlockInputs.memory`, or None. It is not
      modulated, gated or dropped.
    cross_norm: template of the norm of x before it.
    memory_norm: template of the norm of the memory; None: as `cross_norm`.
    heads: attention heads.
    dtype: compute dtype.
  """

  attention: Template
  mlp: Template
  norm: Template
  adaln: Template | None = None
  cross: Template | None = None
  cross_norm: Template = RMSNorm
  memory_norm: Template | None = None
  heads: Few = 1
  dtype: Dtype = jnp.float32

  def empty_cache(self, batch: int, slots: int, width: int) -> Cache | None:
    """A cache of this layer, see `Attention.empty_cache`."""
    attention = self.attention(heads=self.heads, dtype=self.dtype, parent=None)
    return attention.empty_cache(batch, slots, width)

  @nn.compact
  def __call__(self, x, drop, inputs: BlockInputs, cache=None):
    """x (b, n, d) -> (x, cache).

    Args:
      x: (b, n, d).
      drop: () float32 drop-path rate of this layer, or None for none.
      inputs: what all layers share.
      cache: `Cache` of this layer or None.
    """
    modulations = [None, None]
    if self.adaln is not None:
      modulations = self._part('adaln', width=x.shape[-1])(inputs)
    gates = [1 if m is None else m[0] for m in modulations]

    def normed(name, modulation):
      y = self.norm(dtype=self.dtype, name=name)(x)
      return y if modulation is None else modulate(y, *modulation[1:])

    y = normed('norm1', modulations[0])
    y, cache = self._part('attention', heads=self.heads)(y, inputs, cache)
    x = x + self._drop(y * gates[0], drop, inputs.train)
    if self.cross is not None:
      x = x + self._read(x, inputs.memory)
    y = self._part('mlp')(normed('norm2', modulations[1]), inputs.train)
    x = x + self._drop(y * gates[1], drop, inputs.train)
    return x, cache

  def _part(self, name, **fields):
    return getattr(self, name)(dtype=self.dtype, name=name, **fields)

  def _read(self, x, memory):
    """What cross attention gives (b, n, d)."""
    if memory is None:
      raise ValueError(
        'config.backbone.block.cross: the condition has no memory to attend to; '
        'use a condition that fills `Cond.memory`, or leave `cross` out'
      )
    norm = self.memory_norm or self.cross_norm
    values = norm(dtype=self.dtype, name='memory_norm')(memory.values)
    y = self._part('cross_norm')(x)
    return self._part('cross', heads=self.heads)(
      y, memory.replace(values=values)
    )

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
  def __call__(self, x, drop, inputs: BlockInputs, cache=None):
    y, cache = self._part('attention', heads=self.heads)(x, inputs, cache)
    norm = lambda name: self.norm(dtype=self.dtype, name=name)
    x = norm('norm1')(x + self._drop(y, drop, inputs.train))
    y = self._part('mlp')(x, inputs.train)
    return norm('norm2')(x + self._drop(y, drop, inputs.train)), cache
