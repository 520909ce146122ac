"""Self-attention over slots, with or without a cache."""

from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from arvision.kernels import traced
from arvision.kernels.attention import attention
from arvision.layers.dense import Dense
from arvision.layers.param import normal, param, zeros
from arvision.layers.position import rotate
from arvision.parallel.constrain import RESIDUAL, constrain
from arvision.ranges import AtLeast0, Below1, Dtype, Few, Positive
from arvision.structs import Template


@flax.struct.dataclass
class Cache:
  """Keys and values of one layer, a row per slot of the layout.

  Heads come before slots, so that a decoding step is a plain batched matmul.

  Attributes:
    k, v: (b, h, n, k); of a stack of layers (l, b, h, n, k).
    layer: of a stack, the one that is written and read; None: there is none.
  """

  k: jax.Array
  v: jax.Array
  layer: Any = None

  @classmethod
  def empty(cls, batch, heads, slots, head_dim, dtype=jnp.float32):
    zeros = jnp.zeros((batch, heads, slots, head_dim), dtype)
    return cls(zeros, zeros)

  def write(self, k, v, start: Any) -> 'Cache':
    """Rows k, v (b, h, e, k) at slots start, start + 1, ..."""
    at: tuple[Any, ...] = (0, 0, start, 0)
    if self.layer is not None:
      k, v, at = k[None], v[None], (self.layer, *at)
    put = jax.lax.dynamic_update_slice
    return self.replace(
      k=put(self.k, k.astype(self.k.dtype), at),
      v=put(self.v, v.astype(self.v.dtype), at),
    )

  def first(self, slots: int) -> 'Cache':
    """The rows of the first slots alone."""
    return self.replace(k=self.k[..., :slots, :], v=self.v[..., :slots, :])

  def over(self, whole: 'Cache') -> 'Cache':
    """`whole` with these rows as its first."""
    put = lambda x, new: jax.lax.dynamic_update_slice(x, new, (0,) * x.ndim)
    return whole.replace(k=put(whole.k, self.k), v=put(whole.v, self.v))

  def read(self, extent: int | None) -> tuple[jax.Array, jax.Array]:
    """k and v (b, h, extent, k) of the first slots; None: of all."""
    if self.layer is None:
      return self.k[..., :extent, :], self.v[..., :extent, :]
    return self._of_layer(self.k, extent), self._of_layer(self.v, extent)

  def _of_layer(self, x, extent):
    # Slicing `extent` of all layers first would copy all layers. On a TPU the
    # matrix product reads a single dynamic slice in place: by the plan, a sampling
    # step of VAR-d16 moves 67 GiB instead of 91. On two cores of a CPU that single
    # slice is slower (22.5 s for four images instead of 16.9), so there are two.
    rows = x.shape[-2] if extent is None else min(extent, x.shape[-2])
    if traced.on_cpu():
      x = jax.lax.dynamic_index_in_dim(x, self.layer, keepdims=False)
      return x[..., :rows, :]
    sizes = (1, *x.shape[1:-2], rows, x.shape[-1])
    return jax.lax.dynamic_slice(x, (self.layer, 0, 0, 0, 0), sizes)[0]


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

  Attributes:
    heads: number of heads; they divide the width.
    logits: template of what is done to q and k before their product.
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

  @nn.compact
  def __call__(
    self,
    x,
    mask,
    rotation=None,
    cache=None,
    start=None,
    extent=None,
    train=False,
  ):
    """x (b, n, d) -> (b, n, d) and the cache with the new rows.

    Args:
      x: (b, n, d).
      mask: a `AttentionMask`, or bool, broadcastable to (b, 1, n, m).
      rotation: (2, n, k / 2) rotary table or None.
      cache: `Cache`, or None to attend within x alone.
      start: first slot of x in the cache.
      extent: static; the cache is read up to this slot.
      train: whether dropout is on.
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
    q, k, v = (self._bias(n, t, head) for n, t in zip('qkv', (q, k, v)))
    if rotation is not None:
      q, k = rotate(q, rotation), rotate(k, rotation)
    q, k = self.logits(name='logits')(q, k)
    if cache is not None:
      cache = cache.write(k, v, start)
      k, v = cache.read(extent)
    drop = None
    if train and self.weights_dropout:
      drop = nn.Dropout(self.weights_dropout, deterministic=False)
    # What is traced to make parameters is spread over no mesh and not run.
    kernel = 'dense' if self.is_initializing() else self.kernel
    k, v = k.astype(q.dtype), v.astype(q.dtype)
    y = attention(q, k, v, mask, drop, kernel)
    y = Dense(
      (width,),
      ('heads', 'kv', 'embed'),
      inputs=2,
      bias='out' in self.biases,
      kernel_init=normal(self.out_std),
      dtype=self.dtype,
      name='out',
    )(y.swapaxes(1, 2))
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    return constrain(y, RESIDUAL), cache

  def _bias(self, name, x, head):
    if name not in self.biases:
      return x
    bias = param(self, f'{name}_bias', zeros, ('heads', 'kv'), head)
    return x + bias[:, None].astype(x.dtype)
