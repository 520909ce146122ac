"""Linear layers and embedding tables with logical axis names."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from arvision.kernels.cpu.product import product
from arvision.layers.param import Init, normal, param, zeros
from arvision.ranges import Count, Dtype, Width

# Checkpoint name of what the remat policy 'dots' keeps.
KEPT = 'dense'


class Dense(nn.Module):
  """y = x W + b over the last axes of x.

  `flax.linen.DenseGeneral` cannot name the axes of a kernel with several
  inputs or outputs on a mesh, and has no accumulation dtype; this layer exists
  for those two reasons.

  Attributes:
    features: output sizes, one or several axes.
    inputs: how many trailing axes of x are contracted.
    names: logical names of the kernel's axes, inputs then outputs.
    bias: whether a bias is added.
    kernel_init: initialiser of the kernel (shape flattened to (in, out)).
    bias_init: initialiser of the bias.
    dtype: compute dtype; sums are always accumulated in float32.
  """

  features: tuple[Width, ...]
  names: tuple[str | None, ...]
  inputs: Width = 1
  bias: bool = True
  kernel_init: Init = normal(0.02)
  bias_init: Init = zeros
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    axes = x.shape[x.ndim - self.inputs :]
    shape = (*axes, *self.features)

    def init(key, shape, dtype=jnp.float32):
      flat = (int(np.prod(axes)), int(np.prod(self.features)))
      return self.kernel_init(key, flat, dtype).reshape(shape)

    kernel = param(self, 'kernel', init, self.names, shape)
    rows = 'abcdefgh'[: x.ndim - self.inputs]
    ins, outs = 'ijkl'[: self.inputs], 'wxyz'[: len(self.features)]
    spec = f'{rows}{ins},{ins}{outs}->{rows}{outs}'
    y = product(spec, x.astype(self.dtype), kernel, self.dtype)
    if self.bias:
      names = self.names[self.inputs :]
      # Before y is rounded, so that its gradient is a sum in float32.
      y = y + param(self, 'bias', self.bias_init, names, self.features)
    return checkpoint_name(y.astype(self.dtype), KEPT)


class Embed(nn.Module):
  """A table of vectors, looked up by id.

  It is sharded along its width alone, since few meshes divide the number of rows
  (1,000 classes and the null class).

  Attributes:
    rows: number of ids.
    width: length of a vector.
    table_init: initialiser of the table.
    dtype: dtype of what is returned.
  """

  rows: Count
  width: Width
  table_init: Init = normal(0.02)
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, ids: jax.Array) -> jax.Array:
    shape = (self.rows, self.width)
    table = param(self, 'table', self.table_init, (None, 'embed'), shape)
    # Gather the embed axis before the lookup: otherwise the partitioner
    # replicates the result and cuts it again on meshes with fsdp and tensor.
    table = nn.with_logical_constraint(table, (None, None))
    return jnp.asarray(table)[ids].astype(self.dtype)
