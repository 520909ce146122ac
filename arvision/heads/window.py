"""Distributions over the ids of a window of tokens (Token-Shuffle)."""

import jax
import jax.numpy as jnp

from arvision.heads.categorical import Categorical
from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.layers.window import ResidualMLPs, share
from arvision.parallel.constrain import constrain
from arvision.ranges import AtLeast0, Few, FewOr0, Width
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

  parts: Few = 4
  width: Width = 768
  depth: FewOr0 = 2
  map_std: AtLeast0 = 0.02

  def setup(self):
    self.fuse = ResidualMLPs(self.depth, self.map_std)
    self.expand = Dense(
      (self.width,), ('mlp', 'embed'), kernel_init=normal(self.map_std)
    )
    self.linear = Dense(
      (self.vocab_size,),
      ('embed', 'vocab'),
      bias=self.bias,
      kernel_init=normal(self.std),
    )

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """z (b, t, 1, d) -> (b, t, s², v) float32 logits."""
    del query
    x = self.fuse(z[:, :, 0].astype(jnp.float32))
    x = x.reshape(*x.shape[:2], self.parts, share(self.width, self.parts))
    names = ('act_batch', 'act_length', None, 'act_vocab')
    return constrain(self.linear(self.expand(x)), names)
