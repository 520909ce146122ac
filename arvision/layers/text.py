"""A caption as start vector, modulation and memory (Infinity)."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.dense import Dense
from arvision.layers.norm import RMSNorm
from arvision.layers.param import normal, param, zeros
from arvision.ranges import AtLeast0, Count, Few, Positive, Share, Width
from arvision.structs import Cond

_HIDDEN = jnp.finfo(jnp.float32).min


class Pool(nn.Module):
  """Attention pooling: a learned query per head over a sequence.

  Attributes:
    width: of the result.
    heads: they divide the width.
    std: standard deviation of the kernels at the start.
    query_std: of the query.
  """

  width: Width
  heads: Few
  std: AtLeast0 = 0.02
  query_std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
    """x (b, m, c), valid (b, m) bool -> (b, width) float32."""
    head = (self.heads, self.width // self.heads)
    init = normal(self.std)
    query = param(self, 'query', normal(self.query_std), ('heads', 'kv'), head)
    kv = Dense(
      (2, *head),
      (None, None, 'heads', 'kv'),
      bias=False,
      kernel_init=init,
      name='kv',
    )(x)
    bias = param(self, 'v_bias', zeros, ('heads', 'kv'), head)
    logits = jnp.einsum('hk,bmhk->bhm', query * head[1] ** -0.5, kv[:, :, 0])
    logits = jnp.where(valid[:, None], logits, _HIDDEN)
    y = jnp.einsum('bhm,bmhk->bhk', jax.nn.softmax(logits), kv[:, :, 1] + bias)
    return Dense(
      (self.width,),
      ('heads', 'kv', 'embed'),
      inputs=2,
      kernel_init=init,
      name='out',
    )(y)


class PooledCaption(nn.Module):
  """Features of a caption: pooled to a vector, and whole as memory.

  The features are normalised. Attention pools them to the vector that modulates
  and, plus `start`, fills the prefix. fc2(gelu(fc1 x)), tanh form, is the memory.
  The null caption is a learned table, of which as many rows are read as the caption
  has that it replaces.

  Source: arXiv 2412.04431; FoundationVision/Infinity, models/infinity.py.

  Attributes:
    length: most features of a caption; rows of the null caption.
    channels: numbers of a feature.
    width: d.
    heads: of the pooling.
    prefix: prefix slots, those of the first scale.
    drop: share of training examples whose caption is replaced by null.
    std: standard deviation of the kernels at the start.
    null_std: of the null caption.
    epsilon: of the norm.
  """

  length: Count
  channels: Width
  width: Width
  heads: Few
  prefix: Few = 1
  drop: Share = 0.1
  std: AtLeast0 = 0.02
  null_std: AtLeast0 = 0.02
  epsilon: Positive = 1e-6

  reads_slots: ClassVar[bool] = False

  def blank(self, batch: int) -> dict:
    shape = (batch, self.length)
    text = np.zeros((*shape, self.channels), np.float32)
    return {'text': text, 'text_valid': np.ones(shape, bool)}

  @nn.compact
  def __call__(self, inputs: dict, slots=None, *, null: jax.Array) -> Cond:
    """The condition of a batch.

    Args:
      inputs: 'text' (b, length, channels) float32, and 'text_valid' (b, length)
        bool, False where padded on either side.
      slots: not read.
      null: (b,) bool, True where the caption is dropped.

    Raises:
      ValueError: heads that do not divide the width.
    """
    if self.width % self.heads:
      raise ValueError(
        f'config.condition.heads={self.heads} does not divide '
        f'config.condition.width={self.width}'
      )
    init = normal(self.std)
    valid = jnp.asarray(inputs['text_valid'])
    # A caption without features attends to zeros.
    valid |= ~jnp.any(valid, -1, keepdims=True)
    row = jnp.maximum(jnp.cumsum(valid, -1) - 1, 0)
    shape = (self.length, self.channels)
    nothing = param(self, 'null', normal(self.null_std), (None, None), shape)
    text = jnp.where(null[:, None, None], nothing[row], inputs['text'])
    x = RMSNorm(epsilon=self.epsilon, name='norm')(text)
    pool = Pool(self.width, self.heads, self.std, self.std, name='pool')
    vector = pool(x, valid)[:, None]
    shape = (self.prefix, self.width)
    start = param(self, 'start', init, (None, 'embed'), shape)

    def linear(name, names):
      return Dense((self.width,), names, kernel_init=init, name=name)

    y = jax.nn.gelu(linear('fc1', (None, 'mlp'))(x), approximate=True)
    memory = linear('fc2', ('mlp', 'embed'))(y)
    return Cond(
      prefix=vector + start,
      modulation=vector,
      memory=memory,
      memory_valid=valid,
    )
