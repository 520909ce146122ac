"""A distribution over the ids of every part of a token, such as its bits."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from arvision.heads.base import Guide
from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.random import Draw
from arvision.ranges import AtLeast0, Count, Width
from arvision.structs import Query


class Parts(nn.Module):
  """Logits of all parts by one linear map; parts are independent given z.

  With two ids per part this is Infinity's bitwise classifier.

  Source: arXiv 2412.04431; FoundationVision/Infinity.

  Attributes:
    parts: of a token.
    vocab_size: ids of a part.
    std: standard deviation of the kernel at the start; 0 for zeros.
  """

  parts: Width
  vocab_size: Count = 2
  std: AtLeast0 = 0.02

  draws: ClassVar[bool] = True
  adjustable: ClassVar[tuple[str, ...]] = ()

  def setup(self):
    self.linear = Dense(
      (self.parts, self.vocab_size),
      ('embed', 'vocab', None),
      kernel_init=normal(self.std),
    )

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """z (b, t, 1, d) -> (b, t, parts, v) float32 logits."""
    del query
    return self.linear(z[:, :, 0].astype(jnp.float32))

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross entropy in nats, the mean over the parts.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, parts) int32 ids.
      draw: not used.
      query: not used.

    Returns:
      (b, t) float32 losses, and per-token metrics (b, t).
    """
    logits = self.field(z, query)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = (jnp.argmax(logits, -1) == targets).astype(jnp.float32)
    return jnp.mean(loss, -1), {'part_accuracy': jnp.mean(right, -1)}

  def sample(
    self, z: jax.Array, draw: Draw, guide: Guide, sampling: Any, query: Query
  ) -> jax.Array:
    """Ids (b, t, parts) int32 of an entity.

    Args:
      z: (b or 2b, t, 1, d); conditional rows, then null rows.
      draw: keys of the b examples.
      guide: merges the two halves of the logits.
      sampling: logits (b, t, parts, v) -> ids (b, t, parts).
      query: not used.
    """
    return sampling(guide(self.field(z, query)), draw)
