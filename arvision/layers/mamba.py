"""Mamba-2, a mixer of slots that is linear in their number, and its block."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.attention import BlockInputs
from arvision.layers.blocks import AdaLN, Block
from arvision.layers.cache import Cache, PerModule
from arvision.layers.dense import Dense
from arvision.layers.norm import RMSNorm, modulate
from arvision.layers.param import normal, param, zeros
from arvision.parallel.constrain import RESIDUAL, constrain
from arvision.ranges import AtLeast0, Dtype, Few, Positive
from arvision.structs import Template


@flax.struct.dataclass
class State(Cache):
  """The state of a Mamba-2 layer after some slots.

  Attributes:
    h: (b, heads, head size, state size) float32, of the recurrence.
    x, bc: (b, conv - 1, ...) the last inputs of the two convolutions.
  """

  h: jax.Array
  x: jax.Array
  bc: jax.Array


def recurrence(
  u: jax.Array,
  decay: jax.Array,
  b: jax.Array,
  c: jax.Array,
  h: jax.Array,
  chunk: int,
) -> tuple[jax.Array, jax.Array]:
  """y_i = h_i c_i with h_i = exp(decay_i) h_(i-1) + u_i b_iᵀ, in every head.

  Slots of a chunk are multiplied with one another, as attention does; a state is
  carried from chunk to chunk.

  Args:
    u: (b, n, heads, p) float32.
    decay: (b, n, heads) float32, at most 0.
    b, c: (b, n, s) float32, which the heads share.
    h: (b, heads, p, s) float32, the state before the first slot.
    chunk: largest number of slots of a chunk.

  Returns:
    y (b, n, heads, p) float32, and the state after the last slot.

  Source: arXiv 2405.21060, section 6.
  """
  batch, n = decay.shape[:2]
  count = -(-n // chunk)
  size = -(-n // count)

  def cut(x):
    """Slots in chunks; those that fill up the last one change no state."""
    more = ((0, 0), (0, count * size - n), *[(0, 0)] * (x.ndim - 2))
    return jnp.pad(x, more).reshape(batch, count, size, *x.shape[2:])

  u, decay, b, c = map(cut, (u, decay, b, c))
  decay = decay.swapaxes(2, 3)  # (b, chunks, heads, size)
  # Added up anew from every slot on: differences of sums from the first lose
  # digits.
  later = np.tri(size, k=-1, dtype=bool)
  between = jnp.cumsum(jnp.where(later, decay[..., None], 0), -2)
  weight = jnp.where(np.tri(size, dtype=bool), jnp.exp(between), 0)
  scores = jnp.einsum('zmis,zmjs->zmij', c, b)[:, :, None] * weight
  y = jnp.einsum('zmhij,zmjhp->zmihp', scores, u)

  sums = jnp.cumsum(decay, -1)
  added = jnp.einsum('zmhj,zmjs,zmjhp->mzhps', weight[..., -1, :], b, u)

  def advance(h, own):
    total, new = own
    return jnp.exp(total)[..., None, None] * h + new, h

  totals = sums[..., -1].swapaxes(0, 1)
  h, before = jax.lax.scan(advance, h, (totals, added))
  y += jnp.einsum('zmhi,zmis,mzhps->zmihp', jnp.exp(sums), c, before)
  return y.reshape(batch, count * size, *y.shape[3:])[:, :n], h


def causal_conv(
  x: jax.Array, kernel: jax.Array, bias: jax.Array, past: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Depthwise convolution over this slot and those before it, and its last inputs.

  Args:
    x: (b, n, ...).
    kernel: (k, ...), the last entry for the slot itself.
    bias: (...).
    past: (b, k - 1, ...) the inputs before x.

  Returns:
    (b, n, ...) float32, and (b, k - 1, ...) like x.
  """
  n = x.shape[1]
  x = jnp.concatenate([past.astype(x.dtype), x], 1)
  return bias + sum(w * x[:, i : i + n] for i, w in enumerate(kernel)), x[:, n:]


def _log_uniform(low, high):
  def init(key, shape, dtype=jnp.float32):
    low_, high_ = np.log(low), np.log(high)
    return jnp.exp(jax.random.uniform(key, shape, dtype, low_, high_))

  return init


def _init_dt(key, shape, dtype=jnp.float32):
  """Biases at which softplus gives time steps of 0.001 to 0.1."""
  dt = _log_uniform(1e-3, 1e-1)(key, shape, dtype)
  return dt + jnp.log(-jnp.expm1(-dt))


def _init_log_a(key, shape, dtype=jnp.float32):
  return jnp.log(jax.random.uniform(key, shape, dtype, 1.0, 16.0))


class Mamba2(nn.Module):
  """Mamba-2: a gated selective state-space model over slots in layout order.

  A slot sees itself and the slots before it.

  Attributes:
    state: size of the state of a channel.
    conv: slots that the convolutions see.
    expand: inner width over d.
    head: channels of a head; the heads share b and c.
    epsilon: of the RMS norm before the output.
    std: standard deviation of the projections at the start.
    conv_std: of the kernels of the convolutions.
    chunk: slots that are multiplied with one another, see `recurrence`.
    dtype: compute dtype of the projections; the recurrence is in float32.

  Source: arXiv 2405.21060; state-spaces/mamba, modules/mamba2.py.
  """

  state: Few = 64
  conv: Few = 4
  expand: Few = 2
  head: Few = 64
  epsilon: Positive = 1e-5
  std: AtLeast0 = 0.02
  conv_std: AtLeast0 = 0.02
  chunk: Few = 64
  dtype: Dtype = jnp.float32

  def empty_cache(self, batch: int, width: int) -> State:
    """The state before the first slot."""
    head, past = self._head(width), (batch, self.conv - 1)
    return State(
      jnp.zeros((batch, *head, self.state)),
      jnp.zeros((*past, *head), self.dtype),
      jnp.zeros((*past, 2, self.state), self.dtype),
    )

  @nn.compact
  def __call__(self, x, inputs: BlockInputs, cache: State | None = None):
    """x (b, n, d) -> (b, n, d) and the state after it.

    Raises:
      ValueError: slots of the layout do not follow one another, each once.
    """
    _check_order(inputs.layout)
    batch, _, width = x.shape
    head = self._head(width)
    empty = self.empty_cache(batch, width)
    old = empty if cache is None else cache

    def linear(name, features, names):
      dense = Dense(
        features,
        ('embed', *names),
        bias=False,
        kernel_init=normal(self.std),
        dtype=self.dtype,
        name=name,
      )
      return dense(x)

    def conv(name, y, names, past):
      shape = y.shape[2:]
      own = lambda what, init, *axes: param(
        self, f'conv_{name}_{what}', init, names[-len(axes) :], axes
      )
      kernel = own('kernel', normal(self.conv_std), self.conv, *shape)
      y, past = causal_conv(y, kernel, own('bias', zeros, *shape), past)
      return jax.nn.silu(y), past

    zx = linear('zx', (2, *head), (None, 'heads', 'kv'))
    z, u = jnp.float32(zx[:, :, 0]), zx[:, :, 1]
    bc = linear('bc', (2, self.state), (None, None))
    dt = jnp.float32(linear('dt', head[:1], ('heads',)))
    u, past_x = conv('x', u, (None, 'heads', 'kv'), old.x)
    bc, past_bc = conv('bc', bc, (None, None, None), old.bc)

    vector = lambda name, init: param(self, name, init, ('heads',), head[:1])
    dt = jax.nn.softplus(dt + vector('dt_bias', _init_dt))
    decay = -jnp.exp(vector('log_a', _init_log_a)) * dt
    b, c = bc[:, :, 0], bc[:, :, 1]
    y, h = recurrence(u * dt[..., None], decay, b, c, old.h, self.chunk)
    y = y + vector('skip', nn.initializers.ones)[:, None] * u
    y = (y * jax.nn.silu(z)).reshape(*x.shape[:2], -1)
    y = RMSNorm(self.epsilon, name='norm')(y).reshape(z.shape)
    y = Dense(
      (width,),
      ('heads', 'kv', 'embed'),
      inputs=2,
      bias=False,
      kernel_init=normal(self.std),
      dtype=self.dtype,
      name='out',
    )(y)
    new = State(h, past_x, past_bc)
    return constrain(y, RESIDUAL), None if cache is None else new

  def _head(self, width):
    """(heads, head size)."""
    inner = self.expand * width
    if inner % self.head:
      raise ValueError(
        f'config.backbone.block.mixer.head={self.head} does not divide the inner '
        f'width {inner}, {self.expand} times config.backbone.width'
      )
    return inner // self.head, self.head


def _check_order(layout: Any) -> None:
  if layout is None:
    return
  ordered = bool((np.diff(layout.entity) >= 0).all())
  if layout.two_streams or layout.pad_to or not ordered:
    raise ValueError(
      'config.backbone.block.mixer carries a state from slot to slot: '
      'config.layout must have one stream, and slots in the order of their steps '
      'without padding'
    )


class OpenAdaLN(AdaLN):
  """AdaLN whose last gate starts as large as the scales (M-VAR).

  Source: OliverRensu/MVAR, MVAR.init_weights: its factor for small gates is that
  of VAR's two.
  """

  @property
  def small_gates(self):
    return self.sublayers - 1


class MixerBlock(Block):
  """Attention, then a mixer with a state of its own, then an MLP (M-VAR).

  All three are modulated and residual. `cross` is not read.

  Attributes:
    mixer: template of the mixer.

  Source: arXiv 2411.10433; OliverRensu/MVAR, models/basic_mvar.py.
  """

  mixer: Template = Mamba2

  def empty_cache(self, batch: int, slots: int, width: int) -> Cache:
    """The caches of attention and mixer."""
    mixer = self.mixer(dtype=self.dtype, parent=None)
    attention = super().empty_cache(batch, slots, width)
    own = {'attention': attention, 'mixer': mixer.empty_cache(batch, width)}
    return PerModule(own)

  @nn.compact
  def __call__(self, x, drop, inputs: BlockInputs, cache=None):
    if self.adaln is None:
      raise ValueError(
        'config.backbone.block.adaln: a MixerBlock has no gates without it'
      )
    adaln = self._part('adaln', width=x.shape[-1], sublayers=3)
    kept = {} if cache is None else dict(cache.of)
    parts = {
      'attention': self._part('attention', heads=self.heads),
      'mixer': self._part('mixer'),
      'mlp': self._part('mlp'),
    }
    each = zip(parts.items(), adaln(inputs))
    for i, ((name, part), (gate, scale, shift)) in enumerate(each, 1):
      y = self.norm(dtype=self.dtype, name=f'norm{i}')(x)
      y = modulate(y, scale, shift)
      if name == 'mlp':
        y = part(y, inputs.train)
      else:
        y, kept[name] = part(y, inputs, kept.get(name))
      x = x + self._drop(y * gate, drop, inputs.train)
    return x, None if cache is None else PerModule(kept)
