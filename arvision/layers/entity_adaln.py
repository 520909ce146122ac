"""Modulations that depend on the entity alone (Hi-MAR's tasks)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.attention import BlockInputs
from arvision.layers.blocks import Modulation
from arvision.layers.dense import Dense, Embed
from arvision.layers.param import normal, param, zeros
from arvision.parallel.constrain import gather_rows
from arvision.ranges import Count, Dtype, Width


class EntityModulation(nn.Module):
  """A learned vector of every entity, mapped to four for all blocks of a stack.

  Attributes:
    width: d.
    entities: number of entities.
  """

  width: Width
  entities: Count

  @nn.compact
  def __call__(self) -> jax.Array:
    """(1, entities, 4, d) float32."""
    embed = Embed(self.entities, self.width, normal(1.0), name='entity')
    linear = Dense(
      (4, self.width),
      ('embed', None, 'mlp'),
      kernel_init=normal(None),
      name='linear',
    )
    return linear(jax.nn.silu(embed(jnp.arange(self.entities))))[None]


class EntityAdaLN(nn.Module):
  """A block's own factor and offset to `EntityModulation`, without shifts.

  Source: arXiv 2505.20288; HiDream-ai/himar, models/himar.py.

  Attributes:
    width: d.
    dtype: compute dtype.
  """

  width: Width
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, inputs: BlockInputs) -> list[Modulation]:
    """The modulation of attention and MLP.

    Args:
      inputs: their `modulation` is (1, s, 4, d); `rows` are the entities of the
        slots.
    """
    entities = inputs.modulation.shape[1]
    names, shape = (None, None, 'embed'), (entities, 4, self.width)

    def start(key, shape, dtype=jnp.float32):
      # Scales start at 0 and gates at 1.
      del key
      return jnp.zeros(shape, dtype).at[:, 1::2].set(1)

    factor = param(self, 'factor', zeros, names, shape)
    offset = param(self, 'offset', start, names, shape)
    chunks = (inputs.modulation * factor + offset).astype(self.dtype)
    chunks = gather_rows(chunks, inputs.rows)
    scale1, gate1, scale2, gate2 = (chunks[..., i, :] for i in range(4))
    shift = jnp.zeros((), self.dtype)
    return [(gate1, scale1, shift), (gate2, scale2, shift)]
