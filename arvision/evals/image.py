"""Image similarity: PSNR and SSIM."""

import jax
import jax.numpy as jnp
import numpy as np

from arvision.structs import Array

# Bounds the PSNR of equal images to 100 dB, so that means stay finite.
_SMALLEST_ERROR = 1e-10


def unit(image: jax.Array) -> jax.Array:
  """[-1, 1] -> [0, 1] float32, clipped."""
  return jnp.clip((image.astype(jnp.float32) + 1) / 2, 0, 1)


def squared_error(a: jax.Array, b: jax.Array) -> jax.Array:
  """(b,) mean squared error on [0, 1] of images (b, H, W, C) in [-1, 1]."""
  return jnp.mean((unit(a) - unit(b)) ** 2, axis=(1, 2, 3))


def psnr(error: Array) -> jax.Array:
  """Peak signal-to-noise ratio in dB, at most 100, of squared errors on [0, 1]."""
  return -10 * jnp.log10(jnp.maximum(error, _SMALLEST_ERROR))


def window_size(shape: tuple[int, ...], wanted: int = 11) -> int:
  """Side of the SSIM window for images (H, W, ...): odd, and it fits inside."""
  side = min(shape[0], shape[1])
  return min(wanted, side if side % 2 else side - 1)


def ssim(
  a: jax.Array, b: jax.Array, window: int = 11, sigma: float = 1.5
) -> jax.Array:
  """Structural similarity, (b,) float32, 1 for equal images.

  With a Gaussian window, without padding, averaged over positions and channels.

  Source: Wang et al., "Image quality assessment: from error visibility to
    structural similarity", 2004, equation 13, K1 = 0.01, K2 = 0.03, L = 1.
  Differs: the paper's 11 x 11 window does not fit images under 11 px; use
    `window_size`, and state it in the name of the metric.

  Args:
    a: (b, H, W, C) in [-1, 1].
    b: the same shape.
    window: odd side of the window in pixels, at most min(H, W).
    sigma: of the Gaussian, in pixels.
  """
  rows = _blur_matrix(a.shape[1], window, sigma)
  columns = _blur_matrix(a.shape[2], window, sigma)

  def blur(x):
    # HIGHEST: the variances below are small differences of these means.
    return jnp.einsum(
      'ph,bhwc,qw->bpqc', rows, x, columns, precision=jax.lax.Precision.HIGHEST
    )

  a, b = unit(a), unit(b)
  mean_a, mean_b = blur(a), blur(b)
  var_a = blur(a * a) - mean_a**2
  var_b = blur(b * b) - mean_b**2
  both = blur(a * b) - mean_a * mean_b
  c1, c2 = 0.01**2, 0.03**2
  luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
  structure = (2 * both + c2) / (var_a + var_b + c2)
  return jnp.mean(luminance * structure, axis=(1, 2, 3))


def _blur_matrix(size, window, sigma):
  """(size - window + 1, size) Gaussian filter without padding."""
  if window > size or window % 2 == 0:
    raise ValueError(f'window {window} for {size} px: wanted odd and <= {size}')
  at = np.arange(window) - window // 2
  weights = np.exp(-0.5 * (at / sigma) ** 2)
  weights /= weights.sum()
  matrix = np.zeros((size - window + 1, size), np.float32)
  for i, row in enumerate(matrix):
    row[i : i + window] = weights
  return matrix
