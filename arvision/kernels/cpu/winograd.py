"""Convolutions on CPUs as matrix products: Winograd's F(2 x 2, 3 x 3).

XLA's convolutions are much slower than its matrix products on a CPU, gradients
most of all. For 4 images of 256 px with 160 channels, XLA takes 1.1 s for a 3 x 3
convolution and 7.6 s for the gradient of its kernel; this module takes 0.6 s and
0.8 s (`python -m benchmarks.convolutions`, table in docs/benchmarks.md). GPUs and
TPUs use XLA's convolution.

F(2 x 2, 3 x 3) computes 2 x 2 outputs from 4 x 4 inputs with 16 products instead
of 36. Its transforms only add and halve, so float32 loses about as much precision
as in the direct sum. bfloat16 operands are multiplied in float32 and rounded once,
at the end.

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

# With fewer channels the matrix products are too thin. A smaller grid gains less
# than the half second that compilation takes.
_CHANNELS, _SIDE = 32, 8

# Values of the input or output that are processed at once, as a band of image rows,
# so that the tiles stay in the cache. Up to twice as many are not split.
_BLOCK = 2**20

# The same for a kernel's gradient. Splitting costs time there, but bounds memory.
_GRADIENT_BLOCK = 2**25


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  **options: Any,
) -> jax.Array:
  """`jax.lax.conv_general_dilated` for NHWC and HWIO, fast on CPUs too.

  The algorithm does not depend on the batch size.

  Args:
    x: (b, h, w, c).
    kernel: (k, k, c, o), dtype of x.
    window_strides, padding, **options: those of `conv_general_dilated`, as
      `nn.Conv` passes them.

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
  """Whether it is a CPU's convolution without strides, dilation and groups."""
  dilations = (options.get(f'{side}_dilation') for side in ('lhs', 'rhs'))
  return (
    traced.on_cpu()
    and options.get('feature_group_count', 1) == 1
    and all(tuple(d or (1, 1)) == (1, 1) for d in (strides, *dilations))
  )


def _zeros(padding):
  """Padding, if it is equal on all sides; else None."""
  if isinstance(padding, str):
    return None
  sides = {side for pair in padding for side in pair}
  return sides.pop() if len(sides) == 1 else None


@jax.custom_vjp
def _three(x, kernel):
  """3 x 3 convolution over a grid of even sides, padded by 1."""
  return _three_by_three(x, kernel)


def _forward(x, kernel):
  return _three(x, kernel), (x, kernel)


def _backward(operands, gradient):
  x, kernel = operands
  of_input = _three_by_three(gradient, kernel, turned=True)
  return of_input, _of_kernel(x, kernel, gradient)


_three.defvjp(_forward, _backward)


# Jitted so that layers of equal shapes are traced once.
@functools.partial(jax.jit, static_argnames='turned')
def _three_by_three(x, kernel, turned=False):
  """See `_three`; `turned` rotates the kernel by 180° and swaps c and o."""
  if min(kernel.shape[2:]) < _CHANNELS:
    if turned:
      kernel = kernel[::-1, ::-1].swapaxes(2, 3)
    one = (1, 1)
    return jax.lax.conv_general_dilated(
      x, kernel, one, (one, one), dimension_numbers=_NUMBERS
    )
  kernels = _kernels(kernel.astype(jnp.float32))
  if turned:
    order = 3, 1, 2, 0  # `_kernels` of a reversed row
    kernels = [[kernels[i][j].T for j in order] for i in order]
  rows = _rows(x.shape, max(kernel.shape[2:]), _BLOCK)
  squares = functools.partial(_squares, kernels=kernels, dtype=x.dtype)
  return _by_rows(squares, _framed(x), rows)


def _of_kernel(x, kernel, gradient):
  """The gradient of the kernel."""
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
  """Image rows to process at once: an even divisor of the height."""
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
  """Applies f to bands of `rows` image rows, padded by one row on each side."""
  batch, height, width, _ = framed.shape
  height, width = height - 2, width - 2
  if rows == height:
    return f(framed)

  def some(start):
    return f(jax.lax.dynamic_slice_in_dim(framed, start, rows + 2, 1))

  y = jax.lax.map(some, jnp.arange(0, height, rows))
  return y.swapaxes(0, 1).reshape(batch, height, width, -1)


def _squares(framed, kernels, dtype):
  """Convolves: (b, h + 2, w + 2, c) and 4 x 4 of (c, o) -> (b, h, w, o)."""
  batch, height, width, _ = framed.shape
  height, width = height - 2, width - 2
  grid = batch, height // 2, width // 2
  rows = []
  for row, of_row in zip(_input_sums(framed, 1), kernels, strict=True):
    products = [
      (square.reshape(math.prod(grid), -1) @ k).reshape(*grid, -1)
      for square, k in zip(_input_sums(row, 2), of_row, strict=True)
    ]
    two = jnp.stack(_output_sums(products), 3)
    rows.append(two.reshape(batch, height // 2, width, -1))
  y = jnp.stack(_output_sums(rows), 2)
  return y.reshape(batch, height, width, -1).astype(dtype)


def _input_sums(x, axis):
  """Input transform along an axis: four sums of every window of 4, stride 2."""
  end = x.shape[axis] - 3
  a, b, c, d = (
    jax.lax.slice_in_dim(x, i, i + end, 2, axis).astype(jnp.float32)
    for i in range(4)
  )
  return a - c, b + c, c - b, b - d


def _output_sums(products):
  """Output transform: 4 products -> 2 outputs."""
  a, b, c, d = products
  return a + b + c, b - c - d


def _kernels(kernel):
  """Kernel transform: (3, 3, c, o) -> 4 x 4 of (c, o)."""

  def four(a, b, c):
    return a, (a + b + c) / 2, (a - b + c) / 2, c

  return [four(*row) for row in four(*kernel)]


def _of_kernels(gradients):
  """The transpose of `_kernels`: 4 x 4 of (c, o) -> (3, 3, c, o)."""

  def three(a, b, c, d):
    return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d

  rows = three(*(jnp.stack(three(*row)) for row in gradients))
  return jnp.stack(rows)
