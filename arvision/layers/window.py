"""Windows of tokens as one token (Token-Shuffle): in and out of the network."""

import flax.linen as nn
import jax

from arvision.layers.blocks import GELU
from arvision.layers.dense import Dense, Embed
from arvision.layers.norm import RMSNorm
from arvision.layers.param import normal
from arvision.ranges import AtLeast0, Count, FewOr0, Width


class ResidualMLPs(nn.Module):
  """x + MLP(norm(x)), some times.

  Attributes:
    depth: number of MLPs.
    std: standard deviation of their kernels.
  """

  depth: FewOr0
  std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """(..., d) -> (..., d)."""
    for i in range(self.depth):
      mlp = GELU(x.shape[-1], self.std, self.std, name=f'mlp_{i}')
      x = x + mlp(RMSNorm(name=f'norm_{i}')(x))
    return x


def share(width: int, parts: int) -> int:
  """Channels of d that a token of a window has.

  Raises:
    ValueError: d is no multiple of the tokens of a window.
  """
  each, rest = divmod(width, parts)
  if rest:
    raise ValueError(
      f'config.backbone.width={width}: wanted a multiple of {parts}, the tokens '
      'of a window'
    )
  return each


class Shuffle(nn.Module):
  """Input embedding of windows: ids (b, n, s²) -> (b, n, d).

  The vector of every token is mapped to d / s² numbers; those of a window stand
  beside one another, and MLPs mix them.

  Source: arXiv 2504.17789, section 3.2.

  Attributes:
    width: d.
    vocab_size: number of ids.
    parts: tokens of a window, s².
    depth: number of residual MLPs.
    std: standard deviation of table and kernels at the start.
  """

  width: Width
  vocab_size: Count
  parts: Width
  depth: FewOr0 = 2
  std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, values: jax.Array, masked=None) -> jax.Array:
    del masked
    each = share(self.width, self.parts)
    table = Embed(self.vocab_size, self.width, normal(self.std), name='codes')
    small = Dense(
      (each,), ('embed', 'mlp'), kernel_init=normal(self.std), name='compress'
    )(table(values))
    x = small.reshape(*values.shape[:2], self.width)
    return ResidualMLPs(self.depth, self.std, name='fuse')(x)
