"""Frozen networks that losses of tokenizers look through, with weights of a file.

A file is stated in the config and read without executing anything in it.
"""

import abc
import dataclasses
import pathlib
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import logging

from arvision.errors import ConfigError, DataError
from arvision.importers import classifiers as importer
from arvision.importers import dino, files
from arvision.layers.resize import resize
from arvision.random import Draw
from arvision.ranges import (
  AtLeast0,
  Count,
  Few,
  Fews,
  Natural,
  Side,
  Width,
  Widths,
)
from arvision.tokenizers import gram, perceptual
from arvision.tokenizers.classifiers import (
  ConvNeXt,
  ResNet,
  normalised,
  prepared,
)
from arvision.tokenizers.dino import ViT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(abc.ABC):
  """Base of frozen networks.

  Attributes:
    path: file of the weights; '' for none, which turns the loss off.
  """

  path: str = ''

  title: ClassVar[str]

  @property
  def file(self) -> pathlib.Path:
    """The file of the weights."""
    return pathlib.Path(self.path).expanduser()

  @abc.abstractmethod
  def params(self) -> Any:
    """The weights, a tree of float32 arrays.

    Raises:
      ConfigError, DataError: the file cannot be used.
    """

  def read(self, key: str) -> Any:
    """The weights; None without a file, which is logged.

    Args:
      key: config key of this part.

    Raises:
      ConfigError, DataError: the file cannot be used.
    """
    if self.path:
      try:
        return self.params()
      except (ConfigError, DataError) as error:
        raise type(error)(f'{key}.path: {error}') from error
    logging.warning(
      '%s is OFF: it needs the weights of %s, but %s.path names no file.',
      key,
      self.title,
      key,
    )
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distance(Network):
  """Base of distances of two images in the features of a frozen network.

  Attributes:
    weight: of the loss.
    smallest: least side of an image, in pixels.
  """

  weight: AtLeast0

  smallest: ClassVar[int] = 1

  @abc.abstractmethod
  def __call__(self, params: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    """(b,) float32, 0 for equal images.

    Args:
      params: of `params`.
      a: (b, H, W, 1 or 3) float in [-1, 1]; grey is repeated.
      b: the same shape.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitDistance(Distance):
  """Mean squared difference of the logits of a classifier.

  Attributes:
    resize: how images become `side` x `side`, see `layers.resize.matrix`.
    side: in pixels.
  """

  weight: AtLeast0 = 0.1
  resize: Literal['bilinear-antialias', 'bicubic-antialias'] = (
    'bilinear-antialias'
  )
  side: Side = 224

  @property
  @abc.abstractmethod
  def network(self) -> nn.Module:
    """The classifier."""

  @property
  def shapes(self) -> Any:
    """Tree of the shapes of its parameters."""
    image = jnp.zeros((1, self.side, self.side, 3))
    return shapes_of(self.network, image)

  def __call__(self, params: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    x, y = self._logits(params, a), self._logits(params, b)
    return jnp.mean((x - y) ** 2, axis=-1)

  def _logits(self, params, image) -> Any:
    image = prepared(image, self.side, self.resize)
    return self.network.apply({'params': params}, image)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetLogits(LogitDistance):
  """The same for a ResNet of torchvision; the default is ResNet-50.

  Source: arXiv 2409.16211 (MaskBit).

  Attributes:
    stages, width, classes: see `tokenizers.classifiers.ResNet`.
  """

  stages: Fews = (3, 4, 6, 3)
  width: Width = 64
  classes: Count = 1000

  title = 'ResNet'

  @property
  def network(self) -> ResNet:
    return ResNet(self.stages, self.width, self.classes)

  def params(self) -> Any:
    return importer.read_resnet(self.file, self.shapes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtLogits(LogitDistance):
  """The same for a ConvNeXt of torchvision; the default is ConvNeXt-S.

  Source: arXiv 2602.09024 (BAR, with resize 'bicubic-antialias'); arXiv 2406.07550
    (TiTok).

  Attributes:
    depths, widths, classes: see `tokenizers.classifiers.ConvNeXt`.
  """

  depths: Fews = (3, 3, 27, 3)
  widths: Widths = (96, 192, 384, 768)
  classes: Count = 1000

  title = 'ConvNeXt'

  @property
  def network(self) -> ConvNeXt:
    return ConvNeXt(self.depths, self.widths, self.classes)

  def params(self) -> Any:
    return importer.read_convnext(self.file, self.shapes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lpips(Distance):
  """LPIPS in the features of torchvision's VGG-16.

  Source: Zhang et al., arXiv 1801.03924.

  Attributes:
    path: file of VGG-16, see `tokenizers.perceptual.read`.
    linear: file of the linear layers of LPIPS; '': they are in the first one.
  """

  weight: AtLeast0 = 1.0
  linear: str = ''

  title = 'VGG-16 and LPIPS'
  smallest = perceptual.NETWORKS['vgg'].smallest

  def params(self) -> Any:
    return perceptual.read(tuple(filter(None, (self.path, self.linear))))

  def __call__(self, params: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    return perceptual.lpips(params, a, b)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gram(Distance):
  """The Gram loss in the features of torchvision's VGG-16.

  Source: arXiv 2602.09024 (BAR).
  """

  weight: AtLeast0 = 10.0

  title = 'VGG-16'
  smallest = perceptual.NETWORKS['vgg'].smallest

  def params(self) -> Any:
    convs = perceptual.NETWORKS['vgg'].convs
    wanted = [f'features.{conv.key}.weight' for conv in convs]
    found = files.find_weights(files.read(self.file), wanted)[1]
    return perceptual.convolutions(found, self.path)

  def __call__(self, params: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    return gram.distance(params, a, b)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dino(Network):
  """Features of a vision transformer, for `Adversary.features`.

  Images become `side` x `side`: smaller ones by a cubic kernel, larger ones by
  averages over areas or, for half of the examples, by a random crop.

  Source: see `tokenizers.dino`.
  Differs: the published code crops all examples of a batch or none, and draws
    again for the reconstruction; here an image and its reconstruction are cut at
    the same place.

  Attributes:
    width, depth, heads, patch, taps: see `tokenizers.dino.ViT`; the default is the
      small one with patches of 16 px.
    side: in pixels, that of the positions in the file.
  """

  width: Width = 384
  depth: Few = 12
  heads: Few = 6
  patch: Side = 16
  taps: tuple[Natural, ...] = (2, 5, 8, 11)
  side: Side = 224

  title = 'DINO'

  @property
  def network(self) -> ViT:
    """The transformer."""
    return ViT(self.width, self.depth, self.heads, self.patch, self.taps)

  @property
  def shapes(self) -> Any:
    """Tree of the shapes of its parameters."""
    return shapes_of(self.network, jnp.zeros((1, self.side, self.side, 3)))

  def params(self) -> Any:
    return dino.read(self.file, self.shapes)

  def __call__(
    self, params: Any, image: jax.Array, draw: Draw | None = None
  ) -> list[jax.Array]:
    """(b, H, W, 1 or 3) in [-1, 1] -> features (b, n, d) float32.

    Args:
      params: of `params`.
      image: the images.
      draw: keys of the examples; None: nothing is cropped.
    """
    x = normalised(self._sized(image.astype(jnp.float32), draw))
    found: Any = self.network.apply({'params': params}, x)
    return found

  def _sized(self, image, draw):
    side = self.side
    height, width = image.shape[1:3]
    whole = resize(image, (side, side), 'area' if height > side else 'bicubic')
    if draw is None or min(height, width) <= side:
      return whole
    u = draw.uniform('task/crop', (3,))
    room = jnp.array([height - side + 1, width - side + 1])
    corner = jnp.int32(u[:, 1:] * room)

    def cut(x, at):
      return jax.lax.dynamic_slice(x, (*at, 0), (side, side, x.shape[-1]))

    cropped = jax.vmap(cut)(image, corner)
    return jnp.where(u[:, :1, None, None] <= 0.5, cropped, whole)


def shapes_of(module: nn.Module, *inputs: Any) -> Any:
  """Tree of the shapes of the parameters of a module."""
  shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  return nn.unbox(shapes['params'])
