"""Hybrid linear attention: softmax inside an entity, a linear state across them."""

import functools
from typing import ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from arvision.kernels.attention import AttentionMask, attention
from arvision.layers.attention import BlockInputs
from arvision.layers.cache import Cache
from arvision.layers.dense import Dense
from arvision.layers.norm import RMSNorm
from arvision.layers.param import normal
from arvision.layouts import masks
from arvision.parallel.constrain import RESIDUAL, constrain, gather_rows
from arvision.ranges import AtLeast0, Dtype, Few, Positive
from arvision.structs import Template


@flax.struct.dataclass
class KeyValueState(Cache):
  """The decayed sum of k vᵀ over the past entities of a layer.

  Attributes:
    sum: (b, h, k, k) float32.
  """

  sum: jax.Array


class GatedRetention(nn.Module):
  """Softmax attention inside an entity, gated linear attention across entities.

      y_i = softmax(q_i kᵀ / sqrt(k)) v + exp(g_1 + ... + g_i) q_i S
      S' = exp(mean_i g_i) S + kᵀ v / sqrt(k)

  S is the state before the entity and S' the one after it; S is zero before the
  first. g = logsigmoid(W (x + c)) / `normalizer` has a number per head and slot
  and reads the condition c. The output is normalized over the head and
  multiplied by silu(W' x).

  All slots of an entity attend to one another, so the layout has entities of
  equal sizes, one stream, and no prefix.

  Source: arXiv 2501.16085 (ARFlow); TheFllood/ARFlow, GateRetention.

  Attributes:
    heads: number of heads; they divide the width.
    norm: template of the norm of q, k and v over the width, and of the output
      over the head.
    normalizer: divides the logarithm of the gate.
    std: standard deviation of the kernels at the start; None: Xavier's.
    kernel: see `layers.attention.Attention`.
    dtype: compute dtype of the projections.
  """

  heads: Few
  norm: Template = RMSNorm
  normalizer: Positive = 16.0
  std: AtLeast0 | None = None
  kernel: str = 'auto'
  dtype: Dtype = jnp.float32

  adjustable: ClassVar[tuple[str, ...]] = ('kernel',)

  def empty_cache(self, batch: int, slots: int, width: int) -> KeyValueState:
    """The zero state, see `layers.attention.Attention.empty_cache`."""
    del slots
    head = width // self.heads
    return KeyValueState(jnp.zeros((batch, self.heads, head, head)))

  @nn.compact
  def __call__(self, x, inputs: BlockInputs, cache=None):
    """x (b, n, d) -> (b, n, d), and the cache after the slots.

    With a cache the slots are one entity; without one they are all slots of the
    layout.
    """
    batch, slots, width = x.shape
    count = 1 if cache is not None else _entities(inputs, slots)
    shape = (batch, count, slots // count, self.heads, width // self.heads)

    def linear(name, features, axis, x):
      return Dense(
        (features,),
        ('embed', axis),
        bias=False,
        kernel_init=normal(self.std),
        dtype=self.dtype,
        name=name,
      )(x)

    def heads(name):  # (b, s, h, e, k) float32
      y = linear(name, width, 'heads', x).astype(jnp.float32)
      y = self.norm(name=f'{name}_norm')(y)
      return y.reshape(shape).swapaxes(2, 3)

    q, k, v = heads('q'), heads('k'), heads('v')
    k = k * np.float32(shape[-1] ** -0.5)
    gate = linear('decay', self.heads, None, x + _condition(inputs, x.dtype))
    gate = jax.nn.log_sigmoid(gate.astype(jnp.float32)) / self.normalizer
    gate = gate.reshape(shape[:-1]).swapaxes(2, 3)  # (b, s, h, e)

    exact = functools.partial(jnp.einsum, precision='highest')
    pairs = exact('bshek,bshel->sbhkl', k, v)
    keep = jnp.exp(gate.mean(-1)).swapaxes(0, 1)[..., None, None]
    start = jnp.zeros_like(pairs[0]) if cache is None else cache.sum
    after, before = jax.lax.scan(
      lambda s, now: (s * now[0] + now[1], s), start, (keep, pairs)
    )
    asked = q * jnp.exp(jnp.cumsum(gate, -1))[..., None]
    y = self._within(q, k, v) + exact('bshek,sbhkl->bshel', asked, before)

    y = self.norm(name='out_norm')(y.swapaxes(2, 3))
    y = y.reshape(x.shape).astype(self.dtype)
    y = y * jax.nn.silu(linear('gate', width, 'heads', x))
    out = Dense(
      (width,),
      ('heads', 'embed'),
      bias=False,
      kernel_init=normal(self.std),
      dtype=self.dtype,
      name='out',
    )
    if cache is not None:
      cache = cache.replace(sum=after)
    return constrain(out(y), RESIDUAL), cache

  def _within(self, q, k, v):
    """Softmax attention inside each entity, (b, s, h, e, k) float32."""
    # Initialisation is traced without a mesh and never run.
    kernel = 'dense' if self.is_initializing() else self.kernel
    one = lambda x: x.reshape(-1, *x.shape[2:]).astype(self.dtype)
    mask = AttentionMask(masks.same(np.zeros(q.shape[-2], np.int32)))
    y = attention(one(q), one(k), one(v), mask, kernel=kernel)
    return y.reshape(q.shape).astype(jnp.float32)


def _condition(inputs, dtype):
  """The condition (b, 1 or n, d) of every slot."""
  modulation = inputs.modulation
  if inputs.rows is not None:
    modulation = gather_rows(modulation, inputs.rows)
  return modulation.astype(dtype)


def _entities(inputs, slots):
  """The number of entities of a whole layout of `slots` slots."""
  layout = inputs.layout
  if layout is None or layout.slots != slots or layout.two_streams:
    raise ValueError(
      'config.backbone.block.attention (GatedRetention): wanted all slots of a '
      'layout of one stream; use layouts.sequence.repeated'
    )
  sizes = np.unique(layout.entity, return_counts=True)[1]
  if layout.prefix or sizes.min() != sizes.max():
    raise ValueError(
      'config.backbone.block.attention (GatedRetention): wanted a layout without '
      f'a prefix whose entities have equal sizes, got a prefix of {layout.prefix} '
      f'and entities of {sizes.min()} to {sizes.max()} slots'
    )
  return len(sizes)
