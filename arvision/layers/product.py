"""Products of arrays that are rounded to a compute dtype, summed in float32."""

import functools
from typing import Any

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def product(spec: str, a: jax.Array, b: jax.Array, dtype: Any) -> jax.Array:
  """`jnp.einsum(spec, a, b)` of a and b in `dtype`, accumulated in float32.

  Gradients are products of the same kind. What comes back is rounded to `dtype`
  first: otherwise a float32 array would be multiplied by one of bfloat16, which
  matrix units do at the speed of float32.

  Args:
    spec: in which every letter stands in two of its three parts.
    a, b: of any dtype, which their gradients have too.
    dtype: of the multiplied arrays.

  Returns:
    float32.
  """
  return jnp.einsum(
    spec,
    a.astype(dtype),
    b.astype(dtype),
    preferred_element_type=jnp.float32,
  )


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
