"""Classifiers of torchvision whose logits a perceptual loss compares.

The networks run in inference alone: the batch normalizations of a ResNet are
parts of its convolutions, see `importers.folded`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.conv import conv
from arvision.layers.dense import Dense
from arvision.layers.norm import AffineLayerNorm
from arvision.layers.param import param
from arvision.layers.resize import resize
from arvision.ranges import Count, Fews, Side, Width, Widths

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def prepared(image: jax.Array, side: int, kind: str) -> jax.Array:
  """Input of a network that was trained on ImageNet.

  Args:
    image: (b, H, W, 1 or 3) float in [-1, 1]; grey is repeated.
    side: of the result.
    kind: see `layers.resize.matrix`.

  Returns:
    (b, side, side, 3) float32, normalised by the statistics of ImageNet.
  """
  return normalised(resize(image.astype(jnp.float32), (side, side), kind))


def normalised(image: jax.Array) -> jax.Array:
  """(b, H, W, 1 or 3) float32 in [-1, 1] -> (b, H, W, 3)."""
  if image.shape[-1] == 1:
    image = jnp.repeat(image, 3, axis=-1)
  return ((image + 1) / 2 - _MEAN) / _STD


class Bottleneck(nn.Module):
  """relu(x + conv(relu(conv(relu(conv(x)))))) with a narrow middle.

  Attributes:
    features: output channels, four times those of the middle.
    stride: of the middle and of the shortcut.
  """

  features: Width
  stride: Side = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inner = self.features // 4
    y = nn.relu(conv(inner, 1, name='conv1')(x))
    y = nn.relu(conv(inner, stride=self.stride, name='conv2')(y))
    y = conv(self.features, 1, name='conv3')(y)
    if x.shape != y.shape:
      x = conv(self.features, 1, stride=self.stride, name='downsample')(x)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """ResNet of bottlenecks: (b, H, W, 3) -> (b, classes) logits.

  Source: He et al., arXiv 1512.03385; torchvision, models/resnet.py, where the
  stride is on the 3 x 3 convolution.

  Attributes:
    stages: blocks of every stage; (3, 4, 6, 3) is ResNet-50.
    width: channels of the first convolution.
    classes: number of logits.
  """

  stages: Fews = (3, 4, 6, 3)
  width: Width = 64
  classes: Count = 1000

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.relu(conv(self.width, 7, stride=2, name='conv1')(x))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1),) * 2)
    for i, blocks in enumerate(self.stages):
      for j in range(blocks):
        block = Bottleneck(
          4 * self.width * 2**i,
          stride=2 if i and not j else 1,
          name=f'layer{i + 1}_{j}',
        )
        x = block(x)
    names = ('embed', 'vocab')
    return Dense((self.classes,), names, name='fc')(x.mean((1, 2)))


class ConvNeXtBlock(nn.Module):
  """x + scale * fc2(gelu(fc1(norm(depthwise 7 x 7 convolution of x))))."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    y = nn.Conv(
      width,
      (7, 7),
      padding=((3, 3),) * 2,
      feature_group_count=width,
      name='depthwise',
    )(x)
    y = AffineLayerNorm(name='norm')(y)
    y = Dense((4 * width,), ('embed', 'mlp'), name='fc1')(y)
    y = jax.nn.gelu(y, approximate=False)
    y = Dense((width,), ('mlp', 'embed'), name='fc2')(y)
    init = nn.initializers.constant(1e-6)
    return x + param(self, 'scale', init, (None,), (width,)) * y


class ConvNeXt(nn.Module):
  """ConvNeXt: (b, H, W, 3) -> (b, classes) logits.

  Source: Liu et al., arXiv 2201.03545; torchvision, models/convnext.py.

  Attributes:
    depths: blocks of every stage; the default is ConvNeXt-S.
    widths: channels of every stage.
    classes: number of logits.
  """

  depths: Fews = (3, 3, 27, 3)
  widths: Widths = (96, 192, 384, 768)
  classes: Count = 1000

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i, (depth, width) in enumerate(zip(self.depths, self.widths)):
      norm, side = AffineLayerNorm(name=f'norm_{i}'), 2 if i else 4
      down = conv(
        width, side, stride=side, padding=((0, 0),) * 2, name=f'down_{i}'
      )
      x = down(norm(x)) if i else norm(down(x))
      for j in range(depth):
        x = ConvNeXtBlock(name=f'stage_{i}_{j}')(x)
    x = AffineLayerNorm(name='norm_out')(x.mean((1, 2)))
    return Dense((self.classes,), ('embed', 'vocab'), name='fc')(x)
