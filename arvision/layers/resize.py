"""Resampling that agrees with torch, as two small matrix products.

Every kernel here is linear and separable, so resizing is one (out, in) matrix
per axis. The matrices are made once in numpy; on an accelerator the products
run on the matrix unit.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

KINDS = (
  'area',
  'bicubic',
  'bicubic-antialias',
  'bilinear',
  'bilinear-antialias',
  'bilinear-tf1',
  'nearest',
)


@functools.cache
def matrix(kind: str, out: int, into: int) -> np.ndarray:
  """Weights (out, into) float32 that resample `into` samples to `out`.

  Source: torch.nn.functional.interpolate, align_corners=False; without antialias
  but for `bilinear-antialias` and `bicubic-antialias`, whose kernels grow with the
  ratio; the cubic one has a = -0.5 then.
  `area` is adaptive average pooling: window i is [floor(i*into/out),
  ceil((i+1)*into/out)), so windows overlap where the sides do not divide.
  `bicubic` has a = -0.75 and repeats the edge. `jax.image.resize` differs: its
  cubic kernel has a = -0.5, and it blurs before it shrinks. `bilinear-tf1` is
  the ResizeBilinear of TensorFlow 1, which puts output sample i at i * into /
  out, not at the centre of its pixel.

  Args:
    kind: one of `KINDS`.
    out: samples wanted.
    into: samples given.

  Raises:
    ValueError: unknown kind, or a side below 1.
  """
  if kind not in KINDS:
    raise ValueError(f"resize kind '{kind}'; wanted one of {KINDS}")
  if out < 1 or into < 1:
    raise ValueError(f'cannot resize {into} samples to {out}')
  weights = np.zeros((out, into), np.float64)
  for i in range(out):
    for j, weight in _taps(kind, i, out, into):
      weights[i, j] += weight  # taps over the edge add up on the edge
  weights = weights.astype(np.float32)
  weights.setflags(write=False)  # the cached array is shared
  return weights


def _taps(kind, i, out, into):
  """(source index, weight) pairs of output sample i."""
  if kind == 'area':
    start, stop = i * into // out, -(-(i + 1) * into // out)
    return [(j, 1 / (stop - start)) for j in range(start, stop)]
  # In float32, as torch and TensorFlow compute it: that decides exact ties, and
  # moves the samples of large images by up to 5e-5 pixels.
  ratio = np.float32(into / out)
  start = ratio * np.float32(i)
  if kind == 'nearest':
    return [(min(int(start), into - 1), 1.0)]
  if kind == 'bilinear-antialias':
    return _antialiased(i, into / out, into, _triangle, 1)
  if kind == 'bicubic-antialias':
    return _antialiased(i, into / out, into, lambda x: _cubic(x, -0.5), 2)
  # torch multiplies and subtracts at once, with one rounding.
  centre = float(np.float32(float(ratio) * (i + 0.5) - 0.5))
  if kind.startswith('bilinear'):
    centre = float(start) if kind == 'bilinear-tf1' else max(centre, 0.0)
    reach, kernel = range(2), _triangle
  else:
    reach, kernel = range(-1, 3), _cubic
  left = math.floor(centre)
  return [
    (min(max(left + k, 0), into - 1), kernel(centre - left - k)) for k in reach
  ]


def _antialiased(i, ratio, into, kernel, radius):
  """Taps of a kernel that covers at least 2 radius samples; they add up to 1."""
  scale = max(ratio, 1.0)
  centre, reach = ratio * (i + 0.5), radius * scale
  start = max(int(centre - reach + 0.5), 0)
  stop = min(int(centre + reach + 0.5), into)
  numbers = range(start, stop)
  heights = [kernel((j - centre + 0.5) / scale) for j in numbers]
  return [(j, x / sum(heights)) for j, x in zip(numbers, heights)]


def _triangle(x):
  return max(1 - abs(x), 0.0)


def _cubic(x, a=-0.75):
  """Keys' cubic convolution kernel."""
  x = abs(x)
  if x <= 1:
    return ((a + 2) * x - (a + 3)) * x * x + 1
  return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a if x < 2 else 0.0


def resize(x: jax.Array, size: tuple[int, ...], kind: str) -> jax.Array:
  """Resamples (b, h, w, c) to (b, *size, c), computed in float32.

  Args:
    x: any float dtype; the result has the same.
    size: (height, width) wanted.
    kind: see `matrix`.
  """
  y = x.astype(jnp.float32)
  # Without 'highest', a TPU would round the operands to bfloat16.
  product = functools.partial(jnp.einsum, precision='highest')
  if x.shape[1] != size[0]:
    y = product('Hh,bhwc->bHwc', matrix(kind, size[0], x.shape[1]), y)
  if x.shape[2] != size[1]:
    y = product('Ww,bhwc->bhWc', matrix(kind, size[1], x.shape[2]), y)
  return y.astype(x.dtype)
