"""Convolutions of CPUs as products of matrices.

XLA has kernels for them that are far from a CPU's matrix products, and further in
gradients: of a batch of 4 images of 256 px and 160 channels, 3 x 3 kernels, the
convolution takes 1.1 s and the gradient of its kernel 7.6 s; below they take 0.6 s
and 0.8 s (`python -m benchmarks.convolutions`, the table is in docs/benchmarks.md).
On GPUs and TPUs nothing is done here.

A 3 x 3 convolution is Winograd's F(2 x 2, 3 x 3): squares of 2 x 2 outputs come
from sums of 4 x 4 inputs, 16 products in the place of 36. Its transforms are sums
and halves, so what float32 loses is about as much as in the plain sum. bfloat16
operands are multiplied as float32: what is rounded are the sums alone.

Source: Lavin and Gray, arXiv 1509.09308, section 4.1.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from arvision.kernels import traced
from arvision.kernels.cpu.product import product

_NUMBERS = ('NHWC', 'HWIO', 'NHWC')

# Fewer channels leave the products of squares thin; a smaller grid gains less than
# the half second that its compilation takes.
_CHANNELS, _SIDE = 32, 8

# So many values of an input, or of an output, are taken at once, some rows of all
# examples: their squares stay in the cache. Up to twice as many are not cut.
_BLOCK = 2**20

# So many for a kernel's gradient, where cutting costs: it bounds the memory.
_GRADIENT_BLOCK = 2**25


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  **options: Any,
) -> jax.Array:
  """`jax.lax.conv_general_dilated` of NHWC and HWIO, quick on CPUs too.

  Which sum is taken for an example does not depend on how many there are.

  Args:
    x: (b, h, w, c).
    kernel: (k, k, c, o), dtype of x.
    window_strides, padding, **options: as there; `nn.Conv` gives them.

  Returns:
    (b, h', w', o), dtype of x.
  """
  kernel_size, plain = kernel.shape[:2], _plain(window_strides, options)
  if plain and kernel_size == (1, 1) and _zeros(padding) == 0:
    y = product('bhwc,co->bhwo', x, kernel[0, 0], x.dtype)
    return y.astype(x.dtype)
  sides = x.shape[1:3]
  squares = min(sides) >= _SIDE and not any(side % 2 for side in sides)
  if plain and kernel_size == (3, 3) and _zeros(padding) == 1 and squares:
    return _three(x, kernel)
  options['dimension_numbers'] = _NUMBERS
  return jax.lax.conv_general_dilated(
    x, kernel, window_strides, padding, **options
  )


def _plain(strides, options):
  """Whether a CPU makes every place of the grid from all channels."""
  dilations = (options.get(f'{side}_dilation') for side in ('lhs', 'rhs'))
  return (
    traced.on_cpu()
    and options.get('feature_group_count', 1) == 1
    and all(tuple(d or (1, 1)) == (1, 1) for d in (strides, *dilations))
  )


def _zeros(padding):
  """How many are around the grid; None where not as many on every side."""
  if isinstance(padding, str):
    return None
  sides = {side for pair in padding for side in pair}
  return sides.pop() if len(sides) == 1 else None


@jax.custom_vjp
def _three(x, kernel):
  """3 x 3 over an even grid, zeros around it."""
  return _three_by_three(x, kernel)


def _forward(x, kernel):
  return _three(x, kernel), (x, kernel)


def _backward(operands, gradient):
  x, kernel = operands
  of_input = _three_by_three(gradient, kernel, turned=True)
  return of_input, _of_kernel(x, kernel, gradient)


_three.defvjp(_forward, _backward)


# Traced once for layers of the same shapes.
@functools.partial(jax.jit, static_argnames='turned')
def _three_by_three(x, kernel, turned=False):
  """See `_three`; `turned`: of the kernel turned by half, from o to c."""
  if min(kernel.shape[2:]) < _CHANNELS:
    if turned:
      kernel = kernel[::-1, ::-1].swapaxes(2, 3)
    one = (1, 1)
    return jax.lax.conv_general_dilated(
      x, kernel, one, (one, one), dimension_numbers=_NUMBERS
    )
  kernels = _kernels(kernel.astype(jnp.float32))
  if turned:
    order = 3, 1, 2, 0  # what `_kernels` gives of a row read backwards
    kernels = [[kernels[i][j].T for j in order] for i in order]
  rows = _rows(x.shape, max(kernel.shape[2:]), _BLOCK)
  squares = functools.partial(_squares, kernels=kernels, dtype=x.dtype)
  return _by_rows(squares, _framed(x), rows)


def _of_kernel(x, kernel, gradient):
  """The kernel's gradient."""
  rows = _rows(x.shape, max(kernel.shape[2:]), _GRADIENT_BLOCK)
  zeros = jnp.zeros(kernel.shape[2:], jnp.float32)
  kernels = [[zeros] * 4] * 4
  framed = _framed(x)

  def some(start):
    part = jax.lax.dynamic_slice_in_dim(framed, start, rows + 2, 1)
    squares = functools.partial(_squares, part, dtype=jnp.float32)
    back = jax.linear_transpose(squares, kernels)
    of = jax.lax.dynamic_slice_in_dim(gradient, start, rows, 1)
    return back(of.astype(jnp.float32))[0]

  def add(total, start):
    return jax.tree.map(jnp.add, total, some(start)), None

  height = x.shape[1]
  if rows == height:
    found = some(0)
  else:
    found, _ = jax.lax.scan(add, kernels, jnp.arange(0, height, rows))
  return _of_kernels(found).astype(kernel.dtype)


def _rows(shape, channels, most):
  """How many rows are taken at once: even, and a divisor of the height."""
  batch, height, width, _ = shape
  row = batch * width * channels
  if height * row <= 2 * most:
    return height
  found = [
    n for n in range(2, height, 2) if height % n == 0 and n * row <= most
  ]
  return max(found, default=2)


def _framed(x):
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _by_rows(f, framed, rows):
  """f of every `rows` rows and the two around them, one below the other."""
  batch, height, width, _ = framed.shape
  height, width = height - 2, width - 2
  if rows == height:
    return f(framed)

  def some(start):
    return f(jax.lax.dynamic_slice_in_dim(framed, start, rows + 2, 1))

  y = jax.lax.map(some, jnp.arange(0, height, rows))
  return y.swapaxes(0, 1).reshape(batch, height, width, -1)


def _squares(framed, kernels, dtype):
  """(b, h + 2, w + 2, c) and 4 x 4 of (c, o) -> (b, h, w, o)."""
  batch, height, width, _ = framed.shape
  height, width = height - 2, width - 2
  grid = batch, height // 2, width // 2
  rows = []
  for row, of_row in zip(_spread(framed, 1), kernels, strict=True):
    products = [
      (square.reshape(math.prod(grid), -1) @ k).reshape(*grid, -1)
      for square, k in zip(_spread(row, 2), of_row, strict=True)
    ]
    two = jnp.stack(_gathered(products), 3)
    rows.append(two.reshape(batch, height // 2, width, -1))
  y = jnp.stack(_gathered(rows), 2)
  return y.reshape(batch, height, width, -1).astype(dtype)


def _spread(x, axis):
  """Along an axis, of any four neighbours from an even place on, four sums."""
  end = x.shape[axis] - 3
  a, b, c, d = (
    jax.lax.slice_in_dim(x, i, i + end, 2, axis).astype(jnp.float32)
    for i in range(4)
  )
  return a - c, b + c, c - b, b - d


def _gathered(products):
  a, b, c, d = products
  return a + b + c, b - c - d


def _kernels(kernel):
  """(3, 3, c, o) -> 4 x 4 of (c, o)."""

  def four(a, b, c):
    return a, (a + b + c) / 2, (a - b + c) / 2, c

  return [four(*row) for row in four(*kernel)]


def _of_kernels(gradients):
  """The transpose of `_kernels`: 4 x 4 of (c, o) -> (3, 3, c, o)."""

  def three(a, b, c, d):
    return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d

  rows = three(*(jnp.stack(three(*row)) for row in gradients))
  return jnp.stack(rows)
