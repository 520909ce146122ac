"""LPIPS: a perceptual distance of two images, in the features of VGG-16.

The user provides the weights: those of torchvision's VGG-16 and the five linear
layers of LPIPS, in one file or two (.safetensors, .npz, .pth).
"""

import pathlib
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from arvision.errors import ConfigError
from arvision.kernels.cpu.winograd import convolve

# Indices of the convolutions in torchvision's `vgg16().features`, by slice. A
# slice ends after the ReLU of its last convolution; a 2 x 2 max pool begins the
# next one.
SLICES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
SMALLEST_IMAGE = 16  # px: halved four times, one pixel is left
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)

Weights = dict[str, Any]


def lpips(weights: Weights, a: jax.Array, b: jax.Array) -> jax.Array:
  """Learned perceptual distance, summed over five layers.

  Source: Zhang et al., arXiv 1801.03924, version 0.1, network 'vgg'.

  Args:
    weights: of `read`.
    a: (b, H, W, 1 or 3) float in [-1, 1]; grey is repeated.
    b: the same shape.

  Returns:
    (b,) float32, 0 for equal images.
  """
  total = jnp.zeros(a.shape[0], jnp.float32)
  for i, (x, y) in enumerate(zip(features(weights, a), features(weights, b))):
    square = (_unit(x) - _unit(y)) ** 2
    linear = jnp.sum(square * weights[f'lin_{i}'], axis=-1)
    total += jnp.mean(linear, axis=(1, 2))
  return total


def features(weights: Weights, image: jax.Array) -> list[jax.Array]:
  """Activations (b, h, w, c) of the five slices of VGG-16."""
  x = image.astype(jnp.float32)
  if x.shape[-1] == 1:
    x = jnp.repeat(x, 3, axis=-1)
  x = (x - _SHIFT) / _SCALE
  out = []
  for i, slice_ in enumerate(SLICES):
    if i:
      x = nn.max_pool(x, (2, 2), (2, 2))
    for j in slice_:
      kernel = jnp.asarray(weights[f'conv_{j}']['kernel'])
      x = convolve(x, kernel, (1, 1), ((1, 1), (1, 1)))
      x = nn.relu(x + weights[f'conv_{j}']['bias'])
    out.append(x)
  return out


def _unit(x):
  """x / (|x| + 1e-10); the gradient at zero is zero."""
  square = jnp.sum(x**2, -1, keepdims=True)
  length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
  return x / (length + 1e-10)


def read(paths: tuple[str, ...]) -> Weights:
  """The weights of `lpips` from one or several files.

  Understands the keys of torchvision (`features.0.weight`), of the LPIPS
  package (`net.slice1.0.weight`, `lin0.model.1.weight`) and of a full dump of
  it (`lins.0.model.1.weight`).

  Args:
    paths: .safetensors, .npz, or .pth/.pt files; the last kind needs torch.

  Raises:
    ConfigError: a missing file, a missing or wrong tensor.
  """
  tensors: dict[str, np.ndarray] = {}
  for path in paths:
    tensors.update(_tensors(pathlib.Path(path).expanduser()))
  weights: Weights = {}
  for key, value in tensors.items():
    conv = re.fullmatch(r'(?:features|net\.slice\d)\.(\d+)\.(weight|bias)', key)
    lin = re.fullmatch(r'lins?\.?(\d)\.model\.1\.weight', key)
    if conv:
      name = {'weight': 'kernel', 'bias': 'bias'}[conv[2]]
      if name == 'kernel':
        value = value.transpose(2, 3, 1, 0)
      weights.setdefault(f'conv_{conv[1]}', {})[name] = np.float32(value)
    elif lin:
      weights[f'lin_{lin[1]}'] = np.float32(value).reshape(-1)
  _check(weights, paths)
  return weights


def _check(weights, paths):
  where = 'config.task.perceptual_weights=' + ', '.join(map(str, paths))
  inputs = 3
  for i, slice_ in enumerate(SLICES):
    width = min(64 * 2**i, 512)
    for j in slice_:
      got = {k: v.shape for k, v in weights.get(f'conv_{j}', {}).items()}
      wanted = {'kernel': (3, 3, inputs, width), 'bias': (width,)}
      if got != wanted:
        raise ConfigError(
          f'{where}: convolution features.{j} of VGG-16 has {got or "nothing"},'
          f' wanted {wanted}'
        )
      inputs = width
    lin = weights.get(f'lin_{i}')
    if lin is None or lin.shape != (width,):
      found = 'nothing' if lin is None else lin.shape
      raise ConfigError(
        f'{where}: linear layer lin{i} of LPIPS has {found}, wanted {(width,)}; '
        "it is in the LPIPS package's weights/v0.1/vgg.pth"
      )
    if (lin < 0).any():
      raise ConfigError(f'{where}: lin{i} has negative weights, not LPIPS')


def _tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Tensors by name; nothing in the file is executed."""
  if not path.is_file():
    raise ConfigError(f'config.task.perceptual_weights: no file {path}')
  if path.suffix == '.npz':
    with np.load(path, allow_pickle=False) as arrays:
      return dict(arrays)
  if path.suffix == '.safetensors':
    try:
      return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
      raise ConfigError(f'{path} is no safetensors file: {error}') from error
  try:
    import torch
  except ImportError as error:
    raise ConfigError(
      f'{path} needs torch (pip install arvision[torch]); .npz and '
      '.safetensors do not'
    ) from error
  state = torch.load(path, map_location='cpu', weights_only=True)
  return {k: v.float().numpy() for k, v in state.items()}
