"""Image similarity: PSNR, SSIM and MS-SSIM."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.structs import Array

# Bounds the PSNR of equal images to 100 dB, so that means stay finite.
_SMALLEST_ERROR = 1e-10
# Exponents of MS-SSIM's scales, the original size first.
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW = 11


def unit(image: jax.Array) -> jax.Array:
  """[-1, 1] -> [0, 1] float32, clipped."""
  return jnp.clip((image.astype(jnp.float32) + 1) / 2, 0, 1)


def squared_error(a: jax.Array, b: jax.Array) -> jax.Array:
  """(b,) mean squared error on [0, 1] of images (b, H, W, C) in [-1, 1]."""
  return jnp.mean((unit(a) - unit(b)) ** 2, axis=(1, 2, 3))


def psnr(error: Array) -> jax.Array:
  """Peak signal-to-noise ratio in dB, at most 100; errors are on [0, 1]."""
  return -10 * jnp.log10(jnp.maximum(error, _SMALLEST_ERROR))


def window_size(shape: tuple[int, ...]) -> int:
  """Side of the SSIM window for images (H, W, ...): odd, and it fits inside."""
  side = min(shape[0], shape[1])
  return min(_WINDOW, side if side % 2 else side - 1)


def scales(shape: tuple[int, ...]) -> int:
  """Scales of MS-SSIM that images (H, W, ...) have, 0 to 5: 5 from 176 px."""
  side = min(shape[0], shape[1])
  return sum(side >> i >= _WINDOW for i in range(len(SCALES)))


def ssim(a: jax.Array, b: jax.Array, window: int = 11) -> jax.Array:
  """Structural similarity, (b,) float32, 1 for equal images.

  With a Gaussian window (σ = 1.5 px), without padding, averaged over positions
  and channels.

  Source: Wang et al., "Image quality assessment: from error visibility to
    structural similarity", 2004, equation 13, K1 = 0.01, K2 = 0.03, L = 1.
  Differs: the paper's 11 x 11 window does not fit images under 11 px; use
    `window_size`, and state it in the name of the metric.

  Args:
    a: (b, H, W, C) in [-1, 1].
    b: the same shape.
    window: odd side of the window in pixels, at most min(H, W).
  """
  luminance, structure = _similarity(unit(a), unit(b), window)
  return jnp.mean(luminance * structure, axis=(1, 2, 3))


def ms_ssim(a: jax.Array, b: jax.Array, count: int = 5) -> jax.Array:
  """Multi-scale structural similarity, (b,) float32, 1 for equal images.

  Of every channel: the product over scales of the mean contrast and structure,
  to the powers of `SCALES`, with the luminance of the last scale; then the mean
  over channels. A scale halves the one before it by means of 2 x 2 pixels.

  Source: Wang, Simoncelli and Bovik, "Multiscale structural similarity for
    image quality assessment", 2003, equation 7.
  Differs: negative means count as 0; an odd side loses its last pixel. With
    fewer than 5 scales the powers are divided by their sum: state the number in
    the name of the metric.

  Args:
    a: (b, H, W, C) in [-1, 1].
    b: the same shape.
    count: number of scales, at most `scales(shape)`.
  """
  if not 1 <= count <= scales(a.shape[1:3]):
    raise ValueError(
      f'{count} scales of {a.shape[1:3]} px: wanted 1 to {scales(a.shape[1:3])}'
    )
  powers = np.array(SCALES[:count], np.float32)
  powers /= powers.sum()
  a, b = unit(a), unit(b)
  product = jnp.ones((a.shape[0], a.shape[3]))
  for i, power in enumerate(powers):
    if i:
      a, b = (nn.avg_pool(x, (2, 2), (2, 2)) for x in (a, b))
    luminance, structure = _similarity(a, b, _WINDOW)
    value = luminance * structure if i == count - 1 else structure
    product *= jnp.maximum(jnp.mean(value, axis=(1, 2)), 0) ** power
  return jnp.mean(product, axis=1)


def _similarity(a, b, window):
  """Maps of luminance, and of contrast and structure, of images in [0, 1]."""
  rows, columns = (_blur_matrix(side, window) for side in a.shape[1:3])

  def blur(x):
    # HIGHEST: the variances below are small differences of these means.
    return jnp.einsum(
      'ph,bhwc,qw->bpqc', rows, x, columns, precision=jax.lax.Precision.HIGHEST
    )

  mean_a, mean_b = blur(a), blur(b)
  var_a = blur(a * a) - mean_a**2
  var_b = blur(b * b) - mean_b**2
  both = blur(a * b) - mean_a * mean_b
  c1, c2 = 0.01**2, 0.03**2
  luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
  structure = (2 * both + c2) / (var_a + var_b + c2)
  return luminance, structure


def _blur_matrix(size, window):
  """(size - window + 1, size) Gaussian filter without padding."""
  if window > size or window % 2 == 0:
    raise ValueError(f'window {window} for {size} px: wanted odd and <= {size}')
  at = np.arange(window) - window // 2
  weights = np.exp(-0.5 * (at / 1.5) ** 2)
  weights /= weights.sum()
  matrix = np.zeros((size - window + 1, size), np.float32)
  for i, row in enumerate(matrix):
    row[i : i + window] = weights
  return matrix
