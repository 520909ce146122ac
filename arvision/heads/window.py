"""Distributions over the ids of a window of tokens (Token-Shuffle)."""

import jax
import jax.numpy as jnp

from arvision.heads.categorical import Categorical
from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.layers.window import ResidualMLPs, share
from arvision.random import Draw
from arvision.ranges import AtLeast0, FewOr0, Width
from arvision.structs import Query


class Unshuffle(Categorical):
  """Logits of all tokens of a window, which are independent given z.

  MLPs mix z, and every token takes d / s² of its numbers, mapped to d again. All
  tokens share one classifier. It is the way back of `layers.window.Shuffle`.

  Source: arXiv 2504.17789, section 3.2.

  Attributes:
    parts: tokens of a window, s².
    width: d.
    depth: number of residual MLPs.
    map_std: standard deviation of all kernels but the classifier's.
  """

  parts: Width = 4
  width: Width = 768
  depth: FewOr0 = 2
  map_std: AtLeast0 = 0.02

  def setup(self):
    super().setup()
    self.fuse = ResidualMLPs(self.depth, self.map_std)
    self.expand = Dense(
      (self.width,), ('mlp', 'embed'), kernel_init=normal(self.map_std)
    )

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """z (b, t, 1, d) -> (b, t, s², v) float32 logits."""
    batch, count = z.shape[:2]
    x = self.fuse(z[:, :, 0].astype(jnp.float32))
    x = x.reshape(batch, count * self.parts, 1, share(self.width, self.parts))
    logits = super().field(self.expand(x), query)
    return logits.reshape(batch, count, self.parts, self.vocab_size)

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross entropy in nats, the mean over a window.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, s²) int32 ids.
      draw: not used.
      query: not used.

    Returns:
      (b, t) float32 losses, and metrics (b, t).
    """
    loss, metrics = super().loss(z, targets, draw, query)
    return jnp.mean(loss, -1), jax.tree.map(lambda x: jnp.mean(x, -1), metrics)
