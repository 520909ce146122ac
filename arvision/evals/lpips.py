"""LPIPS as an evaluator's distance, with the weights of the user's files."""

import dataclasses
import functools
import hashlib
import pathlib
from typing import Any, Literal

import jax
import numpy as np

from arvision.errors import ConfigError, DataError
from arvision.importers import files
from arvision.structs import Array
from arvision.tokenizers import perceptual


@dataclasses.dataclass(frozen=True)
class Lpips:
  """Learned perceptual distance of images, version 0.1.

  Attributes:
    backbone: file of torchvision's network (alexnet, vgg16 or squeezenet1_1).
    linear: file of the linear layers: `weights/v0.1/<network>.pth` of the
      package lpips.
    network: 'alex', which papers report; 'vgg' or 'squeeze'.
  """

  backbone: str
  linear: str
  network: Literal['alex', 'vgg', 'squeeze'] = 'alex'

  @property
  def name(self) -> str:
    """'lpips-alex' or the like, for the names of metrics."""
    return f'lpips-{self.network}'

  @functools.cached_property
  def weights(self) -> str:
    """SHA-256 of both files in hex.

    Raises:
      DataError: no such file.
    """
    digest = hashlib.sha256()
    for path in (self.backbone, self.linear):
      try:
        with open(_path(path), 'rb') as file:
          digest.update(hashlib.file_digest(file, 'sha256').digest())
      except OSError as error:
        raise DataError(f"'{path}': {error.strerror}") from error
    return digest.hexdigest()

  def check(self, shape: tuple[int, ...], where: str) -> None:
    """Refuses images (H, W, C) that the network cannot take.

    Args:
      shape: of an image.
      where: config key of this part, for the error.

    Raises:
      ConfigError: they are too small, or neither grey nor RGB.
    """
    smallest = perceptual.NETWORKS[self.network].smallest
    if min(shape[:2]) < smallest or shape[2] not in (1, 3):
      raise ConfigError(
        f'{where}.network={self.network!r} takes grey and RGB images of at '
        f'least {smallest} px, got (H, W, C) = {tuple(shape)}; leave {where} '
        'out'
      )

  @functools.cached_property
  def _params(self) -> Any:
    tensors: dict[str, Any] = {}
    for path, names in ((self.backbone, 'features.'), (self.linear, 'lin')):
      for place in files.places(files.read(_path(path))):
        found = {k: v for k, v in place.weights.items() if k.startswith(names)}
        tensors |= {k: np.asarray(v) for k, v in found.items()}
    where = f'{self.backbone}, {self.linear}'
    return perceptual.collect(tensors, where, self.network)

  @functools.cached_property
  def _program(self):
    # Weights as arguments, not constants of the program.
    return jax.jit(functools.partial(perceptual.lpips, network=self.network))

  def __call__(self, a: Array, b: Array) -> np.ndarray:
    """(n,) float32 distances of images (n, H, W, 1 or 3) in [-1, 1].

    Raises:
      ConfigError, DataError: files that cannot be used.
    """
    return np.asarray(self._program(self._params, a, b))


def _path(path):
  return pathlib.Path(path).expanduser()
