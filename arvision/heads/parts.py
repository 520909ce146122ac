"""A distribution over the ids of every part of a token, such as its bits."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from arvision.heads.base import Guide
from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.parallel.constrain import constrain
from arvision.random import Draw
from arvision.ranges import AtLeast0, Count, Width
from arvision.structs import Query


class Parts(nn.Module):
  """Logits of every part by a linear map of its own; parts are independent given z.

  With two ids per part this is Infinity's bitwise classifier, with sub-codes it is
  ELM's.

  Source: arXiv 2412.04431 (Infinity); arXiv 2410.16257 (ELM).

  Attributes:
    parts: ids of a token.
    vocab_size: number of ids of a part.
    bias: whether the maps have a bias.
    std: standard deviation of the kernels at the start; 0 for zeros.
  """

  parts: Width
  vocab_size: Count = 2
  bias: bool = True
  std: AtLeast0 = 0.02

  draws: ClassVar[bool] = True
  adjustable: ClassVar[tuple[str, ...]] = ()

  @nn.compact
  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """z (b, t, 1, d) -> (b, t, parts, v) float32 logits."""
    logits = Dense(
      (self.parts, self.vocab_size),
      ('embed', None, 'vocab'),
      bias=self.bias,
      kernel_init=normal(self.std),
      name='linear',
    )(z[:, :, 0].astype(jnp.float32))
    return constrain(logits, ('act_batch', 'act_length', None, 'act_vocab'))

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross entropy in nats, the mean over parts.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, parts) int32 ids, or (b, t) of one part.
      draw, query: not used.

    Returns:
      (b, t) float32 losses, and per-token metrics (b, t).
    """
    logits = self.field(z, query)
    targets = targets.reshape(logits.shape[:-1])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = (jnp.argmax(logits, -1) == targets).astype(jnp.float32)
    return jnp.mean(loss, -1), {'part_accuracy': jnp.mean(right, -1)}

  def sample(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> jax.Array:
    """Ids of an entity, shaped as `loss`'s targets; see `heads.base.Head`."""
    ids = sampling(guide(self.field(z, query)), draw)
    return ids if self.parts > 1 else ids[..., 0]
