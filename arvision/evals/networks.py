"""Networks of features on the local devices."""

import dataclasses
import functools
import hashlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arvision.errors import ConfigError, DataError
from arvision.evals.base import pad
from arvision.evals.features import Features
from arvision.importers import hub
from arvision.ranges import Batch


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
  """Base of extractors: a network with weights from a file.

  A subclass states `name`, `resize`, how weights are read and what is computed.

  Attributes:
    path: the file of the weights.
    batch: images per device and call. The last call is padded, so that all have
      one shape and compile once.
  """

  path: str | None = None
  batch: Batch = dataclasses.field(default=32, kw_only=True)

  @functools.cached_property
  def weights(self) -> str:
    """SHA-256 of the file in hex.

    Raises:
      ConfigError: no path is stated.
      DataError: no such file.
    """
    try:
      with open(hub.local(self.file()), 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
      raise DataError(f"'{self.file()}': {error.strerror}") from error

  @property
  def missing(self) -> str:
    """Why there are no weights, with what to do; '' if a file is stated."""
    name = type(self).__name__
    return '' if self.path else f'{name}.path: wanted the file of the weights'

  def file(self) -> str:
    """Path of the weights.

    Raises:
      ConfigError: there are none, see `missing`.
    """
    if self.missing:
      raise ConfigError(self.missing)
    assert self.path
    return self.path

  def params(self) -> Any:
    """Tree of float32 arrays, read from the file.

    Raises:
      ConfigError, DataError: the file cannot be used.
    """
    raise NotImplementedError

  def prepare(self, images: jax.Array) -> jax.Array:
    """(b, H, W, 3) uint8 -> the input of the network, on the devices."""
    raise NotImplementedError

  def taps(self, params: Any, x: jax.Array) -> Features:
    """Features of prepared images, as arrays on the devices."""
    raise NotImplementedError

  @functools.cached_property
  def _placed(self):
    """The sharding of images, and the parameters on all local devices."""
    mesh = Mesh(np.asarray(jax.local_devices()), ('data',))
    params = jax.device_put(self.params(), NamedSharding(mesh, PartitionSpec()))
    return NamedSharding(mesh, PartitionSpec('data')), params

  def __call__(self, images: np.ndarray) -> Features:
    """See `features.Extractor`.

    Raises:
      ConfigError, DataError: the file cannot be used.
      ValueError: other images.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.shape[3:] != (3,) or not images.size:
      raise ValueError(
        f'images {images.dtype} of shape {images.shape}, wanted uint8 (n, H, W, '
        '3) with n, H, W of 1 or more'
      )
    sharding, params = self._placed
    size = self.batch * sharding.num_devices
    parts: list[Any] = []
    running: Any = None
    for start in range(0, len(images), size):
      part = jax.device_put(pad(images[start : start + size], size), sharding)
      # Fetches a result while the next one is computed.
      running, done = self.taps(params, self.prepare(part)), running
      parts += [_on_host(done)] if done else []
    parts.append(_on_host(running))
    joined = jax.tree.map(lambda *x: np.concatenate(x)[: len(images)], *parts)
    return Features(**joined)


def _on_host(found: Features) -> Any:
  """The arrays by name, as those of numpy."""
  return jax.tree.map(np.asarray, vars(found))
