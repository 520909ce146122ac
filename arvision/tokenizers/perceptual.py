"""LPIPS: a perceptual distance of two images, in the features of a classifier.

The user provides the weights: those of torchvision's network and the linear
layers of LPIPS, in one file or two.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from arvision.errors import ConfigError
from arvision.kernels.cpu.winograd import convolve

_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


class Conv(NamedTuple):
  """A convolution with ReLU: its key in torchvision's `features`."""

  key: str
  inputs: int
  width: int
  kernel: int = 3
  stride: int = 1
  padding: int = 1


class Pool(NamedTuple):
  """A max pool of stride 2; `ceil` keeps a window that is partly outside."""

  size: int
  ceil: bool = False


class Fire(NamedTuple):
  """SqueezeNet's module: a narrow layer, and two beside each other."""

  key: str
  inputs: int
  squeeze: int
  width: int

  @property
  def convs(self) -> tuple[Conv, Conv, Conv]:
    half = self.width // 2
    return (
      Conv(f'{self.key}.squeeze', self.inputs, self.squeeze, 1, padding=0),
      Conv(f'{self.key}.expand1x1', self.squeeze, half, 1, padding=0),
      Conv(f'{self.key}.expand3x3', self.squeeze, half),
    )


@dataclasses.dataclass(frozen=True)
class Network:
  """A network of LPIPS.

  Attributes:
    title: name of the network.
    slices: layers; the activations at the end of every slice are compared.
    smallest: side of the smallest image in pixels.
  """

  title: str
  slices: tuple[tuple[Any, ...], ...]
  smallest: int

  @property
  def convs(self) -> list[Conv]:
    """All convolutions."""
    layers = [layer for slice_ in self.slices for layer in slice_]
    groups = [getattr(layer, 'convs', (layer,)) for layer in layers]
    return [c for group in groups for c in group if isinstance(c, Conv)]

  @property
  def widths(self) -> list[int]:
    """Channels at the end of every slice."""
    return [slice_[-1].width for slice_ in self.slices]


_TWO, _THREE, _CEIL = Pool(2), Pool(3), Pool(3, ceil=True)
NETWORKS = {
  'vgg': Network(
    'VGG-16',
    (
      (Conv('0', 3, 64), Conv('2', 64, 64)),
      (_TWO, Conv('5', 64, 128), Conv('7', 128, 128)),
      (
        _TWO,
        Conv('10', 128, 256),
        Conv('12', 256, 256),
        Conv('14', 256, 256),
      ),
      (
        _TWO,
        Conv('17', 256, 512),
        Conv('19', 512, 512),
        Conv('21', 512, 512),
      ),
      (
        _TWO,
        Conv('24', 512, 512),
        Conv('26', 512, 512),
        Conv('28', 512, 512),
      ),
    ),
    smallest=16,
  ),
  'alex': Network(
    'AlexNet',
    (
      (Conv('0', 3, 64, 11, 4, 2),),
      (_THREE, Conv('3', 64, 192, 5, 1, 2)),
      (_THREE, Conv('6', 192, 384)),
      (Conv('8', 384, 256),),
      (Conv('10', 256, 256),),
    ),
    smallest=31,
  ),
  'squeeze': Network(
    'SqueezeNet 1.1',
    (
      (Conv('0', 3, 64, 3, 2, 0),),
      (_CEIL, Fire('3', 64, 16, 128), Fire('4', 128, 16, 128)),
      (_CEIL, Fire('6', 128, 32, 256), Fire('7', 256, 32, 256)),
      (_CEIL, Fire('9', 256, 48, 384)),
      (Fire('10', 384, 48, 384),),
      (Fire('11', 384, 64, 512),),
      (Fire('12', 512, 64, 512),),
    ),
    smallest=17,
  ),
}

Weights = dict[str, Any]


def lpips(
  weights: Weights, a: jax.Array, b: jax.Array, network: str = 'vgg'
) -> jax.Array:
  """Learned perceptual distance, summed over the slices of a network.

  Source: Zhang et al., arXiv 1801.03924, version 0.1.

  Args:
    weights: of `read`.
    a: (b, H, W, 1 or 3) float in [-1, 1]; grey is repeated.
    b: the same shape.
    network: one of `NETWORKS`.

  Returns:
    (b,) float32, 0 for equal images.
  """
  total = jnp.zeros(a.shape[0], jnp.float32)
  pairs = zip(*(features(weights, x, network) for x in (a, b)))
  for i, (x, y) in enumerate(pairs):
    square = (_unit(x) - _unit(y)) ** 2
    linear = jnp.sum(square * weights[f'lin_{i}'], axis=-1)
    total += jnp.mean(linear, axis=(1, 2))
  return total


def features(
  weights: Weights, image: jax.Array, network: str = 'vgg'
) -> list[jax.Array]:
  """Activations (b, h, w, c) at the end of every slice."""
  x = image.astype(jnp.float32)
  if x.shape[-1] == 1:
    x = jnp.repeat(x, 3, axis=-1)
  x = (x - _SHIFT) / _SCALE
  out = []
  for slice_ in NETWORKS[network].slices:
    for layer in slice_:
      x = apply(layer, weights, x)
    out.append(x)
  return out


def apply(layer: Any, weights: Weights, x: jax.Array) -> jax.Array:
  """One layer of a network: (b, h, w, c) -> (b, h', w', c'), after its ReLU."""
  if isinstance(layer, Pool):
    size = layer.size
    # The last window of `ceil` reaches beyond the end by this much.
    more = [
      (0, -(side - size) % 2 if layer.ceil else 0) for side in x.shape[1:3]
    ]
    return nn.max_pool(x, (size, size), (2, 2), more)
  if isinstance(layer, Fire):
    squeeze, *expand = layer.convs
    x = apply(squeeze, weights, x)
    return jnp.concatenate([apply(c, weights, x) for c in expand], axis=-1)
  weight = weights[f'conv_{layer.key}']
  kernel = jnp.asarray(weight['kernel'])
  strides, ends = (layer.stride,) * 2, ((layer.padding,) * 2,) * 2
  return nn.relu(convolve(x, kernel, strides, ends) + weight['bias'])


def _unit(x):
  """x / (|x| + 1e-10); the gradient at zero is zero."""
  square = jnp.sum(x**2, -1, keepdims=True)
  length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
  return x / (length + 1e-10)


def read(paths: tuple[str, ...], network: str = 'vgg') -> Weights:
  """The weights of `lpips` from one or several files, see `collect`.

  Args:
    paths: .safetensors, .npz, or .pth/.pt files; the last kind needs torch.
    network: one of `NETWORKS`.

  Raises:
    ConfigError: a missing file, a missing or wrong tensor.
  """
  tensors: dict[str, np.ndarray] = {}
  for path in paths:
    tensors.update(_tensors(pathlib.Path(path).expanduser()))
  where = ', '.join(map(str, paths))
  return collect(tensors, where, network)


def collect(
  tensors: Mapping[str, Any], where: str, network: str = 'vgg'
) -> Weights:
  """The weights of `lpips` from tensors of torch.

  Understands the keys of torchvision (`features.0.weight`), of the LPIPS
  package (`net.slice1.0.weight`, `lin0.model.1.weight`) and of a full dump of
  it (`lins.0.model.1.weight`).

  Args:
    tensors: key -> array.
    where: config keys or files of the tensors, for errors.
    network: one of `NETWORKS`.

  Raises:
    ConfigError: a missing or wrong tensor.
  """
  weights = convolutions(tensors, where, network)
  _check_linear(weights, where, network)
  return weights


def convolutions(
  tensors: Mapping[str, Any], where: str, network: str = 'vgg'
) -> Weights:
  """The weights of the layers of a network alone; see `collect`."""
  weights, form = converted(tensors), NETWORKS[network]
  for conv in form.convs:
    got = {k: v.shape for k, v in weights.get(f'conv_{conv.key}', {}).items()}
    kernel = (conv.kernel, conv.kernel, conv.inputs, conv.width)
    wanted = {'kernel': kernel, 'bias': (conv.width,)}
    if got != wanted:
      raise ConfigError(
        f'{where}: convolution features.{conv.key} of {form.title} has '
        f'{got or "nothing"}, wanted {wanted}'
      )
  return weights


def converted(tensors: Mapping[str, Any]) -> Weights:
  """The weights that `collect` understands, not checked."""
  weights: Weights = {}
  for key, value in tensors.items():
    conv = re.fullmatch(
      r'(?:features|net\.slice\d)\.(\d+(?:\.\w+)?)\.(weight|bias)', key
    )
    lin = re.fullmatch(r'lins?\.?(\d)\.model\.1\.weight', key)
    if conv:
      name = {'weight': 'kernel', 'bias': 'bias'}[conv[2]]
      value = np.asarray(value)
      if name == 'kernel':
        value = value.transpose(2, 3, 1, 0)
      weights.setdefault(f'conv_{conv[1]}', {})[name] = np.float32(value)
    elif lin:
      weights[f'lin_{lin[1]}'] = np.float32(np.asarray(value)).reshape(-1)
  return weights


def _check_linear(weights, where, network):
  for i, width in enumerate(NETWORKS[network].widths):
    lin = weights.get(f'lin_{i}')
    if lin is None or lin.shape != (width,):
      found = 'nothing' if lin is None else lin.shape
      raise ConfigError(
        f'{where}: linear layer lin{i} of LPIPS has {found}, wanted {(width,)}; '
        f"it is in the LPIPS package's weights/v0.1/{network}.pth"
      )
    if (lin < 0).any():
      raise ConfigError(f'{where}: lin{i} has negative weights, not LPIPS')


def _tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Tensors by name; nothing in the file is executed."""
  if not path.is_file():
    raise ConfigError(f'no file {path}')
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
