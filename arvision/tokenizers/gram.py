"""Gram loss: the channels that occur together, in all layers of a classifier."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from arvision.tokenizers import perceptual
from arvision.tokenizers.classifiers import prepared

_SIDE = 224
# All layers of torchvision's VGG-16; LPIPS needs no last pool.
VGG = (
  *itertools.chain(*perceptual.NETWORKS['vgg'].slices),
  perceptual.Pool(2),
)


def distance(
  weights: perceptual.Weights,
  a: jax.Array,
  b: jax.Array,
  layers: Sequence[Any] = VGG,
) -> jax.Array:
  """Squared difference of the Gram matrices, summed over the layers.

  Convolutions count twice: the published loss compares the output of every
  layer, and the ReLU after a convolution overwrites its output.

  Source: Gatys et al., arXiv 1508.06576; amazon-far/BAR, modeling/losses.py.

  Args:
    weights: of `perceptual.read`.
    a: (b, H, W, 1 or 3) float in [-1, 1]; grey is repeated.
    b: the same shape.
    layers: of the classifier.

  Returns:
    (b,) float32, 0 for equal images.
  """
  x, y = (prepared(image, _SIDE, 'bilinear') for image in (a, b))
  total = jnp.zeros(a.shape[0], jnp.float32)
  for layer in layers:
    x, y = (perceptual.apply(layer, weights, image) for image in (x, y))
    times = 2 if isinstance(layer, perceptual.Conv) else 1
    square = (matrix(x) - matrix(y)) ** 2
    total += times * jnp.mean(square, axis=(1, 2))
  return total


def matrix(features: jax.Array) -> jax.Array:
  """(b, h, w, c) -> (b, c, c) products of channels over c h w."""
  b, h, w, c = features.shape
  flat = features.reshape(b, h * w, c)
  return jnp.einsum('bnc,bnd->bcd', flat, flat) / (c * h * w)
