"""Self-attention, with or without a cache, and attention to a memory."""

from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from arvision.kernels.attention import attention
from arvision.layers.cache import KeyValues
from arvision.layers.dense import Dense
from arvision.layers.param import normal, param, zeros
from arvision.layers.position import rotate, rotate_halves
from arvision.layouts.base import Layout
from arvision.parallel.constrain import RESIDUAL, constrain
from arvision.ranges import AtLeast0, Below1, Dtype, Few, Positive
from arvision.structs import Template


@flax.struct.dataclass
class Memory:
  """A second sequence that blocks with cross attention read.

  Attributes:
    values: (b, m, c).
    mask: an `AttentionMask`, or bool, broadcastable to (b, h, n, m).
    rotation: (2, n, k / 2) rotary table of x and, as long, of the memory; or None.
  """

  values: jax.Array
  mask: Any
  rotation: Any = None


@flax.struct.dataclass
class BlockInputs:
  """What every layer is given besides x and its cache.

  Attributes:
    mask: a `kernels.attention.AttentionMask` where slots see one another and are
      static; or bool, broadcastable to (b, h, n, m).
    modulation: (b, 1 or n, d), or (b, 1 or n, 6, d) where layers share it.
    rows: (n,) row of `modulation` that every slot takes; None: as they come.
    level: (b, 1 or n, d) the share of noise levels alone in it, for blocks that
      tell them apart.
    memory: what cross attention reads, or None.
    rotation: (2, n, k / 2), or what else `Decoder.rotary` makes; or None.
    again: (1 or b, n, d) what is added to x before some layers, see `Stack`; or
      None.
    index: (n,) int32 place of every slot in the layout; None outside of a backbone.
    layout: static; likewise.
    start: first slot in the cache; traced or not.
    extent: static; slots of the cache that are read.
    guidance, guided_layers: see `structs.Slots`.
    train: static; dropout and drop path.
  """

  mask: Any
  modulation: Any = None
  rows: Any = None
  level: Any = None
  memory: Memory | None = None
  rotation: Any = None
  again: Any = None
  index: Any = None
  layout: Layout | None = flax.struct.field(pytree_node=False, default=None)
  start: Any = None
  extent: int | None = flax.struct.field(pytree_node=False, default=None)
  guidance: Any = None
  guided_layers: tuple[int, ...] = flax.struct.field(
    pytree_node=False, default=()
  )
  train: bool = flax.struct.field(pytree_node=False, default=False)


class Scaled(nn.Module):
  """q · k / sqrt(head size), or another constant.

  Attributes:
    scale: None for 1 / sqrt(k).
  """

  scale: Positive | None = None

  @nn.compact
  def __call__(self, q: jax.Array, k: jax.Array):
    scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
    return q * jnp.asarray(scale, q.dtype), k


class L2Normed(nn.Module):
  """Cosine attention with a learned temperature per head (VAR).

  Attributes:
    start: temperature at the start; the log of it is learned.
    limit: largest temperature.

  Source: FoundationVision/VAR, attn_l2_norm.
  """

  start: Positive = 4.0
  limit: Positive = 100.0

  @nn.compact
  def __call__(self, q: jax.Array, k: jax.Array):
    init = nn.initializers.constant(jnp.log(self.start))
    log_scale = param(self, 'log_scale', init, ('heads',), (q.shape[1],))
    scale = jnp.exp(jnp.minimum(log_scale, jnp.log(self.limit)))
    return _unit(q) * scale[:, None, None].astype(q.dtype), _unit(k)


class Normed(nn.Module):
  """q and k normalised over the head, then q · k / sqrt(head size) (RAR).

  Attributes:
    norm: template of the norm.
  """

  norm: Template

  @nn.compact
  def __call__(self, q: jax.Array, k: jax.Array):
    scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    q_norm, k_norm = self.norm(name='q_norm'), self.norm(name='k_norm')
    return q_norm(q).astype(q.dtype) * scale, k_norm(k).astype(k.dtype)


def _unit(x):
  x32 = x.astype(jnp.float32)
  norm = jnp.sqrt(jnp.sum(x32 * x32, axis=-1, keepdims=True))
  return (x32 / jnp.maximum(norm, 1e-12)).astype(x.dtype)


class Attention(nn.Module):
  """Multi-head self-attention.

  q and k are scaled or normalised first, then rotated.

  Attributes:
    heads: number of heads; they divide the width.
    logits: template of the scaling or normalisation of q and k.
    biases: which of 'q', 'k', 'v', 'out' have a bias.
    std: standard deviation of the input projections; None: Xavier's.
    out_std: standard deviation of the output projection, likewise.
    dropout: rate on the output (LlamaGen's residual dropout).
    weights_dropout: rate on the weights of the values.
    kernel: 'auto', 'dense', 'splash' or 'cudnn', see `kernels.attention`.
    dtype: compute dtype.
  """

  heads: Few
  logits: Template = Scaled
  biases: tuple[str, ...] = ()
  std: AtLeast0 | None = 0.02
  out_std: AtLeast0 | None = 0.02
  dropout: Below1 = 0.0
  weights_dropout: Below1 = 0.0
  kernel: str = 'auto'
  dtype: Dtype = jnp.float32

  adjustable: ClassVar[tuple[str, ...]] = ('kernel',)

  def empty_cache(self, batch: int, slots: int, width: int) -> KeyValues | None:
    """A `Cache` of a layer without any slot; subclasses may keep another kind.

    Args:
      batch: b.
      slots: rows that later steps read, `Layout.rows`; without any there are no
        keys and values to keep, and the cache is None.
      width: d.
    """
    if not slots:
      return None
    head = width // self.heads
    return KeyValues.empty(batch, self.heads, slots, head, self.dtype)

  @nn.compact
  def __call__(self, x, inputs: BlockInputs, cache=None):
    """x (b, n, d) -> (b, n, d) and the cache with the new slots.

    Without a cache x attends within itself alone.
    """
    width = x.shape[-1]
    head = (self.heads, width // self.heads)
    qkv = Dense(
      (3, *head),
      ('embed', None, 'heads', 'kv'),
      bias=False,
      kernel_init=normal(self.std),
      dtype=self.dtype,
      name='qkv',
    )(x)
    qkv = constrain(
      qkv, ('act_batch', 'act_length', None, 'act_heads', 'act_kv')
    )
    q, k, v = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))  # (b, h, n, k)
    q, k, v = (_biased(self, n, t) for n, t in zip('qkv', (q, k, v)))
    q, k = self.logits(name='logits')(q, k)
    if inputs.rotation is not None:
      q, k = self._rotated(q, k, inputs.rotation)
    if cache is not None:
      cache = cache.write(k, v, inputs.start)
      k, v = cache.read(inputs.extent)
    drop = None
    if inputs.train and self.weights_dropout:
      drop = nn.Dropout(self.weights_dropout, deterministic=False)
    # Initialisation is traced without a mesh and never run.
    kernel = 'dense' if self.is_initializing() else self.kernel
    k, v = k.astype(q.dtype), v.astype(q.dtype)
    y = attention(q, k, v, inputs.mask, drop, kernel)
    y = Dense(
      (width,),
      ('heads', 'kv', 'embed'),
      inputs=2,
      bias='out' in self.biases,
      kernel_init=normal(self.out_std),
      dtype=self.dtype,
      name='out',
    )(y.swapaxes(1, 2))
    y = nn.Dropout(self.dropout, deterministic=not inputs.train)(y)
    return constrain(y, RESIDUAL), cache

  def _rotated(self, q, k, rotation):
    """q and k (b, h, n, k), rotated."""
    return rotate(q, rotation), rotate(k, rotation)


def _biased(module, name, x):
  """x (b, h, n, k) plus the bias of q, k or v, if the module has one."""
  if name not in module.biases:
    return x
  head = (x.shape[1], x.shape[3])
  bias = param(module, f'{name}_bias', zeros, ('heads', 'kv'), head)
  return x + bias[:, None].astype(x.dtype)


class AimedAttention(Attention):
  """Half of the heads ask from the position that their slot predicts.

  `layers.position.AimedRotary` rotates k and the first half of the heads of q by
  the position of the token that a slot carries, the second half by that of its
  target.

  Source: arXiv 2602.09024 (BAR).
  """

  def _rotated(self, q, k, rotation):
    own, target = rotation
    half = q.shape[1] // 2
    first, second = rotate(q[:, :half], own), rotate(q[:, half:], target)
    return jnp.concatenate([first, second], 1), rotate(k, own)


class HalvesAttention(Attention):
  """Channel i is rotated with channel i + k / 2, see `layers.position.Halves`."""

  def _rotated(self, q, k, rotation):
    return rotate_halves(q, rotation), rotate_halves(k, rotation)


class CrossAttention(nn.Module):
  """Multi-head attention to a memory.

  Attributes:
    heads: number of heads; they divide the width.
    logits: template of the scaling or normalisation of q and k.
    biases: which of 'q', 'k', 'v', 'out' have a bias.
    layer_scale: start of a learned factor for every channel of the output; None:
      there is none.
    std: standard deviation of the input kernels at the start; None: Xavier's.
    out_std: of the output kernel; None: as `std`.
    kernel: see `layers.attention.Attention`.
    dtype: compute dtype.
  """

  heads: Few
  logits: Template = Scaled
  biases: tuple[str, ...] = ('out',)
  layer_scale: AtLeast0 | None = None
  std: AtLeast0 | None = 0.02
  out_std: AtLeast0 | None = None
  kernel: str = 'auto'
  dtype: Dtype = jnp.float32

  adjustable: ClassVar[tuple[str, ...]] = ('kernel',)

  @nn.compact
  def __call__(self, x, memory: Memory):
    """x (b, n, d) -> (b, n, d)."""
    width = x.shape[-1]
    head = (self.heads, width // self.heads)

    def linear(name, features, names, inputs=1, bias=False, std=self.std):
      return Dense(
        features,
        names,
        inputs=inputs,
        bias=bias,
        kernel_init=normal(std),
        dtype=self.dtype,
        name=name,
      )

    q = linear('q', head, ('embed', 'heads', 'kv'))(x)
    q = constrain(q, ('act_batch', 'act_length', 'act_heads', 'act_kv'))
    kv = linear('kv', (2, *head), ('embed', None, 'heads', 'kv'))(memory.values)
    kv = constrain(kv, ('act_batch', 'act_length', None, 'act_heads', 'act_kv'))
    q = q.swapaxes(1, 2)  # (b, h, n, k)
    k, v = (kv[:, :, i].swapaxes(1, 2) for i in range(2))
    q, k, v = (_biased(self, n, t) for n, t in zip('qkv', (q, k, v)))
    if memory.rotation is not None:
      q, k = rotate(q, memory.rotation), rotate(k, memory.rotation)
    q, k = self.logits(name='logits')(q, k)
    kernel = 'dense' if self.is_initializing() else self.kernel
    y = attention(q, k, v, memory.mask, kernel=kernel).swapaxes(1, 2)
    names = ('heads', 'kv', 'embed')
    out_std = self.std if self.out_std is None else self.out_std
    out = linear('out', (width,), names, 2, 'out' in self.biases, out_std)
    y = constrain(out(y), RESIDUAL)
    if self.layer_scale is None:
      return y
    init = nn.initializers.constant(self.layer_scale)
    gamma = param(self, 'gamma', init, ('embed',), (width,))
    return y * gamma.astype(y.dtype)
