"""Logits by the table of the input embedding."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.dense import Dense
from arvision.layers.norm import AffineLayerNorm
from arvision.layers.param import param, zeros


class TableLogits(nn.Module):
  """norm(gelu(linear(x))) times the vectors of a table, plus a bias.

  No gradient reaches the table.

  Source: Pepper-lll/LMforImageGeneration, llama/mlm_model.py, MlmLayer.
  """

  @nn.compact
  def __call__(self, x: jax.Array, table: jax.Array) -> jax.Array:
    """(..., d) float32, (rows, d) -> (..., rows) float32."""
    rows, width = table.shape
    x = Dense((width,), ('embed', 'mlp'), name='transform')(x)
    x = jax.nn.gelu(x, approximate=False)
    x = AffineLayerNorm(epsilon=1e-5, name='norm')(x)
    table = jax.lax.stop_gradient(jnp.asarray(table, jnp.float32))
    table = nn.with_logical_constraint(table, (None, None))
    return x @ table.T + param(self, 'bias', zeros, (None,), (rows,))
