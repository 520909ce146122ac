"""A distribution over ids."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from arvision.heads.base import Guide
from arvision.layers.dense import Dense
from arvision.layers.norm import AffineLayerNorm
from arvision.layers.param import normal
from arvision.parallel.constrain import constrain
from arvision.random import Draw
from arvision.ranges import AtLeast0, Below1, Count, Few, Positive, Width
from arvision.structs import Query


class Categorical(nn.Module):
  """Logits by a linear map in float32; cross entropy; one draw per token.

  Branches that predict the same token are averaged as logits.

  Attributes:
    vocab_size: number of ids.
    branches: outputs of the backbone; each has a map of its own.
    bias: whether the map has a bias.
    std: standard deviation of the kernel at the start; 0 for zeros.
    label_smoothing: share of the target's mass spread over all ids.
    parts: ids of a token, independent given z; more than one add an axis to
      logits and losses.
  """

  vocab_size: Count
  bias: bool = True
  std: AtLeast0 = 0.02
  label_smoothing: Below1 = 0.0
  branches: Few = 1
  parts: Few = 1

  draws: ClassVar[bool] = True
  adjustable: ClassVar[tuple[str, ...]] = ()

  def setup(self):
    self.maps = [
      self._map(f'linear_{r}' if r else 'linear') for r in range(self.branches)
    ]

  def _map(self, name):
    several = self.parts > 1
    return Dense(
      (self.parts,) * several + (self.vocab_size,),
      ('embed', *(None,) * several, 'vocab'),
      bias=self.bias,
      kernel_init=normal(self.std),
      name=name,
    )

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """z (b, t, r, d) -> (b, t, v) or (b, t, parts, v) float32 logits."""
    z = z.astype(jnp.float32)
    middle = (None,) * (self.parts > 1)
    names = ('act_batch', 'act_length', *middle, 'act_vocab')
    logits = [constrain(f(z[:, :, r]), names) for r, f in enumerate(self.maps)]
    if self.branches == 1:
      return logits[0]
    present = jnp.asarray(query.present)
    # A padded token has no branch at all.
    share = present / jnp.maximum(jnp.sum(present, -1, keepdims=True), 1)
    stacked = jnp.stack(logits, axis=2)
    return jnp.einsum('btr...,tr->bt...', stacked, share.astype(jnp.float32))

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross entropy in nats.

    Args:
      z: (b, t, r, d).
      targets: (b, t) or (b, t, parts) int32 ids.
      draw: not used.
      query: says which branches a token has.

    Returns:
      float32 losses and metrics of every id, shaped like the targets.
    """
    logits = self.field(z, query)
    if self.label_smoothing:
      labels = optax.smooth_labels(
        jax.nn.one_hot(targets, self.vocab_size), self.label_smoothing
      )
      loss = optax.softmax_cross_entropy(logits, labels)
    else:
      loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = (jnp.argmax(logits, -1) == targets).astype(jnp.float32)
    return loss, {'token_accuracy': right}

  def sample(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> jax.Array:
    """Ids (b, t) or (b, t, parts) int32 of an entity.

    Args:
      z: (b or 2b, t, r, d); conditional rows, then null rows.
      draw: keys of the b examples.
      guide: merges the two halves of the logits.
      sampling: logits (..., v) -> ids (...).
      query: see `loss`.
    """
    return sampling(guide(self.field(z, query)), draw)


class Forked(Categorical):
  """The same with a second map, for passes over masked tokens (HMAR).

  For `bodies.Fork`.
  """

  def setup(self):
    super().setup()
    self.masked_map = self._map('linear_masked')

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """As above; `query.masked` says which map."""
    plain = super().field
    if self.is_initializing():  # a pass has one map, a model both
      self.masked_map(z[:, :, 0])
      plain(z, query)
    if query.masked is None:
      return plain(z, query)
    names = ('act_batch', 'act_length', 'act_vocab')
    return constrain(self.masked_map(z[:, :, 0].astype(jnp.float32)), names)


class Transformed(Categorical):
  """The same behind norm(gelu(linear)), tanh form (MaskGIT's MlmLayer).

  Attributes:
    width: d.
    epsilon: of the norm.
  """

  width: Width = 768
  epsilon: Positive = 1e-12

  approximate: ClassVar[bool] = True

  def setup(self):
    super().setup()
    self.transform = Dense(
      (self.width,), ('embed', 'mlp'), kernel_init=normal(0.02)
    )
    self.norm = AffineLayerNorm(epsilon=self.epsilon)

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    y = self.transform(z.astype(jnp.float32))
    y = jax.nn.gelu(y, approximate=self.approximate)
    return super().field(self.norm(y), query)


class ExactTransformed(Transformed):
  """The same with the error function (MaskBit)."""

  approximate: ClassVar[bool] = False


class Given(Categorical):
  """The same where the backbone gives the logits (`bodies.TiedLogits`)."""

  def setup(self):
    pass

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """z (b, t, 1, v or more) -> (b, t, v) float32."""
    return z[:, :, 0, : self.vocab_size].astype(jnp.float32)


class DeepCategorical(Categorical, kw_only=True):
  """`Categorical` behind a linear map and GELU (Infinity's `head_depth=2`).

  Source: FoundationVision/Infinity, models/infinity.py.

  Attributes:
    width: d.
  """

  width: Width

  def setup(self):
    super().setup()
    init = normal(self.std)
    self.hidden = Dense((self.width,), ('embed', 'mlp'), kernel_init=init)

  def field(self, z, query):
    hidden = self.hidden(z.astype(jnp.float32))
    return super().field(jax.nn.gelu(hidden, approximate=True), query)
