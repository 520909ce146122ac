"""Attention to the rows of another sequence, and a block that has it."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.kernels.attention import attention
from arvision.layers.attention import Scaled
from arvision.layers.blocks import Block
from arvision.layers.dense import Dense
from arvision.layers.norm import RMSNorm, modulate
from arvision.layers.param import normal
from arvision.layers.position import rotate
from arvision.parallel.constrain import MODULATION, RESIDUAL, constrain
from arvision.ranges import AtLeast0, Dtype, Few
from arvision.structs import Template


class CrossAttention(nn.Module):
  """Multi-head attention to a memory, with a bias on the output alone.

  Attributes:
    heads: number of heads; they divide the width.
    logits: template of what is done to q and k before their product.
    std: standard deviation of the kernels at the start; None: Xavier's.
    kernel: see `layers.attention.Attention`.
    dtype: compute dtype.
  """

  heads: Few
  logits: Template = Scaled
  std: AtLeast0 | None = 0.02
  kernel: str = 'auto'
  dtype: Dtype = jnp.float32

  adjustable: ClassVar[tuple[str, ...]] = ('kernel',)

  @nn.compact
  def __call__(self, x, memory, mask, rotation=None):
    """x (b, n, d), memory (b, m, c) -> (b, n, d).

    Args:
      x: (b, n, d).
      memory: (b, m, c).
      mask: a `AttentionMask`, or bool, broadcastable to (b, 1, n, m).
      rotation: (2, n, k / 2) rotary table of x and, as long, of the memory; or
        None.
    """
    width = x.shape[-1]
    head = (self.heads, width // self.heads)

    def linear(name, features, names, inputs=1, bias=False):
      return Dense(
        features,
        names,
        inputs=inputs,
        bias=bias,
        kernel_init=normal(self.std),
        dtype=self.dtype,
        name=name,
      )

    q = linear('q', head, ('embed', 'heads', 'kv'))(x)
    q = constrain(q, ('act_batch', 'act_length', 'act_heads', 'act_kv'))
    kv = linear('kv', (2, *head), ('embed', None, 'heads', 'kv'))(memory)
    kv = constrain(kv, ('act_batch', 'act_length', None, 'act_heads', 'act_kv'))
    q = q.swapaxes(1, 2)  # (b, h, n, k)
    k, v = (kv[:, :, i].swapaxes(1, 2) for i in range(2))
    if rotation is not None:
      q, k = rotate(q, rotation), rotate(k, rotation)
    q, k = self.logits(name='logits')(q, k)
    kernel = 'dense' if self.is_initializing() else self.kernel
    y = attention(q, k, v, mask, kernel=kernel).swapaxes(1, 2)
    names = ('heads', 'kv', 'embed')
    return constrain(
      linear('out', (width,), names, inputs=2, bias=True)(y), RESIDUAL
    )


class CrossBlock(Block):
  """A block with attention to a memory between its two modulated halves.

  Noise levels alone modulate the self-attention, the whole condition the MLP:
  three modulations each, gate, scale and shift. The memory is neither gated nor
  modulated; it has a row for every row of x, at the same coordinates.

  Source: OliverRensu/FlowAR, the flow heads of its larger models.

  Attributes:
    cross: template of `CrossAttention`, with its heads.
    memory_norm: template of the norms before it.
    std: standard deviation of the modulation kernels; None: Xavier's.
  """

  cross: Template = None
  memory_norm: Template = RMSNorm
  std: AtLeast0 | None = None

  @nn.compact
  def __call__(self, x, drop, rest, cache=None):
    """See `Block`; `rest` has `level` and `memory`."""
    gate, scale, shift = self._three('adaln_attention', rest.level, x)
    y, cache = self.attention(name='attention')(
      modulate(self.norm(name='norm1')(x), scale, shift),
      rest.mask,
      rest.rotation,
      cache,
      rest.start,
      rest.extent,
      rest.train,
    )
    x = x + self._drop(y * gate, drop, rest.train)
    y = self.cross(dtype=x.dtype, name='cross')(
      self.memory_norm(dtype=x.dtype, name='cross_norm')(x),
      self.memory_norm(dtype=x.dtype, name='memory_norm')(rest.memory),
      rest.mask,
      rest.rotation,
    )
    x = x + self._drop(y, drop, rest.train)
    gate, scale, shift = self._three('adaln_mlp', rest.modulation, x)
    y = modulate(self.norm(name='norm2')(x), scale, shift)
    y = self.mlp(name='mlp')(y, rest.train)
    return x + self._drop(y * gate, drop, rest.train), cache

  def _three(self, name, vector, x):
    """Gate, scale and shift (b, 1 or n, d) of a vector like them."""
    three = Dense(
      (3, x.shape[-1]),
      ('embed', None, 'mlp'),
      kernel_init=normal(self.std),
      dtype=x.dtype,
      name=name,
    )(jax.nn.silu(vector))
    three = constrain(three, MODULATION)
    return (three[..., i, :] for i in range(3))
