"""A data part over arrays, for the tests of the evals."""

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arvision.evals.features import Features


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
  """Images (n, H, W, C) in [-1, 1] and labels; every k-th is held out."""

  images: np.ndarray
  labels: np.ndarray
  every: int = 4
  names: tuple[str, ...] = ('low', 'high')

  def _rows(self, held_out):
    rows = np.arange(len(self.images))
    if not self.every:
      return rows[:0] if held_out else rows
    return rows[(rows % self.every == 0) == held_out]

  @property
  def examples(self):
    return len(self._rows(False))

  @property
  def held_out_examples(self):
    return len(self._rows(True))

  @property
  def classes(self):
    return self.names

  @property
  def num_classes(self):
    return len(self.names)

  @property
  def digest(self):
    parts = (self.images, self.labels, np.array([self.every]))
    data = b''.join(part.tobytes() for part in parts)
    return hashlib.sha256(data).hexdigest()

  @property
  def shape(self):
    return self.images.shape[1:]

  def train(self, batch_size, seed, process_index=0, process_count=1):
    generator = np.random.default_rng(seed)
    while True:
      rows = generator.permutation(self._rows(False))
      for i in range(0, len(rows) - batch_size + 1, batch_size):
        yield self._batch(rows[i : i + batch_size])

  def held_out(self, batch_size, process_index=0, process_count=1, views=''):
    yield from self._pass(self._rows(True), batch_size, views)

  def train_pass(self, batch_size, process_index=0, process_count=1, views=''):
    yield from self._pass(self._rows(False), batch_size, views)

  def _pass(self, rows, batch_size, views=''):
    for i in range(0, len(rows), batch_size):
      part = rows[i : i + batch_size]
      full = np.resize(part, batch_size)
      weight = (np.arange(batch_size) < len(part)).astype(np.float32)
      batch = {**self._batch(full), 'weight': weight}
      if views:
        count = {'center': 1, 'flip': 2, 'ten_crop': 10}[views]
        batch['image'] = np.repeat(batch['image'][:, None], count, axis=1)
        batch['image'][:, 1::2] = batch['image'][:, 1::2, :, ::-1]
      yield batch

  def _batch(self, rows):
    return {
      'image': self.images[rows],
      'label': self.labels[rows],
      'index': rows.astype(np.int32),
      'caption': np.array([f'picture {r}' for r in rows], object),
    }


def two_classes(
  count: int = 120, shape: tuple[int, int, int] = (6, 9, 1)
) -> Arrays:
  """Bright tops against bright bottoms, with noise: easily told apart."""
  generator = np.random.default_rng(0)
  labels = (np.arange(count) // 2 % 2).astype(np.int32)
  ramp = np.linspace(-0.5, 0.5, shape[0])[None, :, None, None]
  sign = np.where(labels, 1, -1)[:, None, None, None]
  noise = 0.2 * generator.standard_normal((count, *shape))
  images = np.clip(sign * ramp + noise, -1, 1).astype(np.float32)
  return Arrays(images, labels)


@functools.cache
def define_operators():
  """Without them torchvision cannot be imported beside torch's CPU wheel."""
  import torch

  if hasattr(torch.ops.torchvision, 'qnms'):
    return None
  library = torch.library.Library('torchvision', 'DEF')
  for name in ('nms', 'qnms'):
    library.define(f'{name}(Tensor a, Tensor b, float c) -> Tensor')
  return library  # the operators last as long as it


@dataclasses.dataclass(frozen=True)
class Toy:
  """Seven averages of pixels and their products, from a file that holds text."""

  path: str = ''
  scale: float = 1.0
  name = 'toy'
  resize = 'none'

  @property
  def weights(self):
    if not self.path:
      return 'no file'
    with open(self.path, 'rb') as file:
      return hashlib.sha256(file.read()).hexdigest()

  def __call__(self, images):
    mesh = Mesh(np.asarray(jax.local_devices()), ('data',))
    if len(images) % mesh.size == 0:
      images = jax.device_put(
        images, NamedSharding(mesh, PartitionSpec('data'))
      )
    return Features(*map(np.asarray, _features(images, self.scale)))


@jax.jit
def _features(x, scale):
  x = x.astype(jnp.float32) / 255 * scale
  grid = jax.image.resize(x, (len(x), 2, 2, 3), 'linear').reshape(-1, 12)
  return grid[:, :7], grid[:, 3:6] ** 2, 40 * (grid[:, ::4] - 0.4)
