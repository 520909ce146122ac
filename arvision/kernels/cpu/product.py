"""Matrix products in a compute dtype with float32 accumulation."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from arvision.kernels import traced


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def product(spec: str, a: jax.Array, b: jax.Array, dtype: Any) -> jax.Array:
  """`jnp.einsum(spec, a, b)` of a and b in `dtype`, accumulated in float32.

  Gradients are products of the same kind: the incoming gradient is rounded to
  `dtype` first. A product of float32 and bfloat16 would run at the speed of
  float32.

  Args:
    spec: einsum of two arrays; every letter stands in at least two of its three
      parts.
    a, b: arrays of any dtype; their gradients have the same dtypes.
    dtype: compute dtype, or its name.

  Returns:
    float32.
  """
  a = a.astype(dtype)
  if jnp.dtype(dtype) == jnp.bfloat16 and traced.on_cpu():
    return _on_cpu(spec, a, b)
  return _einsum(spec, a, b.astype(dtype))


# Without bfloat16 instructions, products of this many rows or more are faster if
# bfloat16 operands are converted to float32 first: 9.8 ms instead of 12.5. With 8
# rows the conversion costs more than it saves: 2.8 ms instead of 1.5.
_MANY_ROWS = 128


def _on_cpu(spec, a, b):
  """Multiplies in the faster dtype, measured with (rows, 1024) x (1024, 4096).

  With avx512_bf16 (two cores of an EPYC) bfloat16 is faster for two rows or more.
  One row takes 3 times as long in bfloat16 as in float32, and 2.3 times as long
  as two rows in bfloat16. So one row is multiplied in float32 by float32 weights,
  and is repeated to two rows for a bfloat16 cache. With avx2 alone float32 is
  always faster: 4.7 times for one row, 1.5 to 1.7 times from 128 rows on.
  """
  inputs, out = spec.split('->')
  left, right = inputs.split(',')
  free = [letter for letter in left if letter not in right]
  rows = math.prod(a.shape[left.index(letter)] for letter in free)
  alone, units = free and rows == 1, traced.cpu_multiplies_bfloat16()
  if b.dtype == jnp.float32 and (alone or not units):
    return _einsum(spec, a, b)
  b = b.astype(jnp.bfloat16)
  if not units and rows >= _MANY_ROWS:
    return _einsum(spec, a.astype(jnp.float32), b)
  if not units or not alone:
    return _einsum(spec, a, b)
  twice = jnp.repeat(a, 2, axis=left.index(free[0]))
  return jax.lax.slice_in_dim(
    _einsum(spec, twice, b), 0, 1, axis=out.index(free[0])
  )


def _einsum(spec, a, b):
  a, b = (x.astype(jnp.promote_types(a.dtype, b.dtype)) for x in (a, b))
  return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _forward(spec, a, b, dtype):
  return product(spec, a, b, dtype), (a, b)


def _backward(spec, dtype, operands, gradient):
  a, b = operands
  inputs, out = spec.split('->')
  left, right = inputs.split(',')
  return (
    product(f'{out},{right}->{left}', gradient, b, dtype).astype(a.dtype),
    product(f'{left},{out}->{right}', a, gradient, dtype).astype(b.dtype),
  )


product.defvjp(_forward, _backward)
