"""Distances between an image and its reconstruction, one per example."""

import jax
import jax.numpy as jnp


def l1(a: jax.Array, b: jax.Array) -> jax.Array:
  """(b, H, W, C) twice -> (b,) float32 mean absolute difference."""
  return jnp.mean(jnp.abs(_difference(a, b)), axis=(1, 2, 3))


def l2(a: jax.Array, b: jax.Array) -> jax.Array:
  """(b, H, W, C) twice -> (b,) float32 mean squared difference."""
  return jnp.mean(_difference(a, b) ** 2, axis=(1, 2, 3))


def psnr(a: jax.Array, b: jax.Array) -> jax.Array:
  """(b,) float32 peak signal-to-noise ratio in dB of images in [-1, 1].

  The reconstruction `b` is clipped first, as pictures are. Equal images have
  100 dB.
  """
  mse = l2(a, jnp.clip(b, -1, 1)) / 4  # the range is 2 wide
  return -10 * jnp.log10(jnp.maximum(mse, 1e-10))


def _difference(a, b):
  return a.astype(jnp.float32) - b.astype(jnp.float32)
