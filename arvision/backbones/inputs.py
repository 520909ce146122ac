"""Input embeddings of single papers; the common ones are in `backbones.decoder`."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.backbones.decoder import VectorInput
from arvision.layers.dense import Dense, Embed
from arvision.layers.norm import AffineLayerNorm
from arvision.layers.param import normal, param
from arvision.ranges import AtLeast0, Count, Natural, Width
from arvision.structs import Template


class SharedPartsInput(nn.Module):
  """Input embedding of tokens of several ids: one table for all parts (BAR).

  The vectors of the parts are concatenated and mapped to the width.

  Attributes:
    width: d.
    parts: ids of a token.
    size: values of an id.
    std: standard deviation at the start.
    extra: rows of the table after those of the values, not used.
  """

  width: Width
  parts: Width
  size: Count
  std: AtLeast0 = 0.02
  extra: Natural = 1

  @nn.compact
  def __call__(self, values: jax.Array, masked=None) -> jax.Array:
    """(b, n, parts) int32 -> (b, n, d)."""
    del masked
    init, each = normal(self.std), -(-self.width // self.parts)
    table = Embed(self.size + self.extra, each, init, name='parts')
    x = table(values).reshape(*values.shape[:2], self.parts * each)
    names = (None, 'embed')
    return Dense((self.width,), names, kernel_init=init, name='linear')(x)


class NormedVectorInput(VectorInput):
  """Input embedding of vectors behind a norm (Infinity's `nm0`).

  Attributes:
    norm: template of the norm.
  """

  norm: Template = AffineLayerNorm

  @nn.compact
  def __call__(self, values: jax.Array, masked=None) -> jax.Array:
    return super().__call__(self.norm(name='norm')(values), masked)


class MaskedVectorInput(VectorInput):
  """`VectorInput` with a vector that is added to masked slots (HMAR)."""

  @nn.compact
  def __call__(self, values: jax.Array, masked=None) -> jax.Array:
    x = super().__call__(values)
    # Of two axes, since it decays as published.
    shape, names = (1, self.width), (None, 'embed')
    own = param(self, 'masked', normal(self.std), names, shape)
    return x if masked is None else x + jnp.where(masked[..., None], own, 0)
