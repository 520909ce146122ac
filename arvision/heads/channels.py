"""A distribution over the levels of a token's channels, one after another."""

import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.nn.initializers import variance_scaling

from arvision.heads.base import Guide
from arvision.layers.attention import Attention, BlockInputs, Normed
from arvision.layers.blocks import AdaLN, Block, ExactGELU
from arvision.layers.dense import Dense
from arvision.layers.norm import AffineLayerNorm, LayerNorm, modulate
from arvision.layers.param import normal, param, zeros
from arvision.layers.stack import Stack, unstack
from arvision.random import Draw
from arvision.ranges import AtLeast0, Below1, Count, Dtype, Few, Natural, Width
from arvision.structs import Query

# Xavier's uniform numbers, for every channel by itself.
_xavier = variance_scaling(1.0, 'fan_avg', 'uniform', batch_axis=(0,))


class Channels(nn.Module):
  """A causal transformer over the channels of every token, given z.

  The sequence starts with z; channel i of `order` is read from slot i, which
  carries the level of the channel before. Every channel has tables of its own.
  adaLN is given z and a vector of the slot.

  Source: arXiv 2503.16430; YuqingWang1029/TokenBridge, models/tokenbridge.py.
    The first slot carries z in training, and z and the vector of the slot in
    sampling: the released models were trained and are sampled so.

  Attributes:
    channels: of a token.
    levels: of a channel.
    width, depth, heads: of the transformer.
    hidden: inner width of its MLPs.
    order: of the channels.
    dropout: on attention, its weights and MLP.
    table_std: standard deviation of the tables of levels at the start.
    remat, unroll: see `Stack`.
    dtype: compute dtype of the blocks.
  """

  channels: Width
  levels: Count
  width: Width
  depth: Few
  heads: Few
  hidden: Width
  order: tuple[Natural, ...]
  dropout: Below1 = 0.1
  table_std: AtLeast0 = 1.0
  remat: str = 'none'
  unroll: Few = 1
  dtype: Dtype = jnp.float32

  draws: ClassVar[bool] = True
  adjustable: ClassVar[tuple[str, ...]] = ()

  def setup(self):
    if sorted(self.order) != [*range(self.channels)]:
      raise ValueError(
        f'config.head.order={self.order}: wanted the numbers 0 to '
        f'{self.channels - 1} of config.head.channels={self.channels}'
      )
    part = functools.partial
    common: Any = {'std': None, 'out_std': None, 'dropout': self.dropout}
    block = part(
      Block,
      attention=part(
        Attention,
        logits=part(Normed, norm=AffineLayerNorm),
        biases=('q', 'k', 'v', 'out'),
        weights_dropout=self.dropout,
        **common,
      ),
      mlp=part(
        ExactGELU, hidden=self.hidden, inner_dropout=self.dropout, **common
      ),
      norm=AffineLayerNorm,
      adaln=part(AdaLN, std=0.0),
      heads=self.heads,
      dtype=self.dtype,
    )
    self.cond = Dense((self.width,), ('embed', 'mlp'), kernel_init=normal(None))
    c, table = self.channels, (self.levels, self.width)
    names = (None, 'vocab', 'embed')
    self.tables = param(
      self, 'tables', normal(self.table_std), names, (c - 1, *table)
    )
    self.position, self.slot = (
      param(self, name, normal(0.02), (None, 'embed'), (c, self.width))
      for name in ('position', 'slot')
    )
    self.stack = Stack(
      block, self.depth, remat=self.remat, unroll=min(self.unroll, self.depth)
    )
    self.norm, self.last_norm = AffineLayerNorm(), LayerNorm()
    self.adaln = Dense(
      (2, self.width), ('embed', None, 'mlp'), kernel_init=normal(0.0)
    )
    names = (None, 'embed', 'vocab')
    self.kernel = param(self, 'kernel', _xavier, names, (c, *table[::-1]))
    self.bias = param(self, 'bias', zeros, (None, 'vocab'), (c, self.levels))

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """Logits of all channels, given the true levels of those before.

    Args:
      z: (b, t, 1, d).
      query: `values` (b, t, c) int32 levels.

    Returns:
      (b, t, c, v) float32, the channels in the order in which they are drawn.
    """
    tokens = jnp.asarray(query.values)
    batch, count, _ = tokens.shape
    cond = self._cond(z).reshape(batch * count, 1, -1)
    ids = tokens[..., np.array(self.order)].reshape(batch * count, -1)
    before = jnp.asarray(self.tables)[np.arange(self.channels - 1), ids[:, :-1]]
    x = jnp.concatenate([cond, before], 1) + self.position
    modulation = cond + self.slot
    causal = np.tri(self.channels, dtype=bool)[None, None]
    inputs = BlockInputs(
      mask=causal,
      modulation=modulation.astype(self.dtype),
      # Heads are not told; without a key there is nothing to drop by.
      train=self.has_rng('dropout'),
    )
    h, _ = self.stack(x.astype(self.dtype), inputs)
    logits = self._logits(h, modulation, self.kernel, self.bias)
    return logits.reshape(batch, count, self.channels, self.levels)

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross entropy in nats, the mean over channels.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, c) int32 levels.
      draw: not used.
      query: see `field`; its values are set here.

    Returns:
      (b, t) float32 losses, and per-token metrics (b, t).
    """
    logits = self.field(z, query.replace(values=targets))
    wanted = targets[..., np.array(self.order)]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
    right = jnp.argmax(logits, -1) == wanted
    metrics = {'level_accuracy': jnp.mean(right.astype(jnp.float32), -1)}
    return jnp.mean(loss, -1), metrics

  def sample(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> jax.Array:
    """Levels (b, t, c) int32 of an entity, channel by channel.

    Args:
      z: (b or 2b, t, 1, d); conditional rows, then null rows.
      draw: keys of the b examples; `fold(i)` is that of channel i of the order.
      guide: merges the two halves of the logits.
      sampling: logits (b, t, v) -> ids (b, t).
      query: not used.
    """
    rows, count = z.shape[:2]
    halves = rows // draw.batch
    cond = self._cond(z).reshape(rows * count, 1, -1)
    head, variables = self.unbind()
    variables = {'params': unstack(variables['params'])}
    caches = self.stack.empty_cache(len(cond), self.channels, self.width)

    def advance(carry, i):
      x, caches = carry
      logits, caches = head.apply(variables, x, cond, i, caches, method='step')
      logits = guide(logits.reshape(rows, count, -1))
      ids = sampling(logits, draw.fold(i))
      both = jnp.concatenate([ids] * halves).reshape(-1, 1)
      # The last channel needs no successor; what is looked up is not used.
      table = jnp.asarray(self.tables)[jnp.minimum(i, self.channels - 2)]
      return (table[both], caches), ids

    start = cond + self.slot[0], caches
    _, ids = jax.lax.scan(advance, start, jnp.arange(self.channels))
    # From the order in which they are drawn to that of the tokenizer.
    return jnp.moveaxis(ids, 0, -1)[..., np.argsort(self.order)]

  def step(self, x, cond, i, caches):
    """Logits (n, v) of channel i of the order, and the new caches."""
    at = jax.lax.dynamic_index_in_dim
    modulation = cond + at(self.slot, i)
    seen = jnp.arange(self.channels) <= i
    inputs = BlockInputs(
      mask=seen[None, None, None],
      modulation=modulation.astype(self.dtype),
      start=i,
      extent=self.channels,
    )
    x = (x + at(self.position, i)).astype(self.dtype)
    h, caches = self.stack(x, inputs, caches)
    kernel, bias = at(self.kernel, i), at(self.bias, i)
    return self._logits(h, modulation, kernel, bias)[:, 0], caches

  def _cond(self, z):
    return self.cond(z[:, :, 0].astype(jnp.float32))

  def _logits(self, h, modulation, kernel, bias):
    """h (n, c, w) with the kernels (c, w, v) of its channels -> (n, c, v)."""
    two = self.adaln(jax.nn.silu(modulation))
    h = self.last_norm(self.norm(h.astype(jnp.float32)))
    h = modulate(h, two[..., 0, :], two[..., 1, :])
    return jnp.einsum('ncw,cwv->ncv', h, kernel) + bias
