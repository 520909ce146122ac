"""Sets of images that are scored or referred to."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from arvision.data import files
from arvision.data.base import Data
from arvision.data.decode import MAX_PIXELS, decode
from arvision.data.folder import EXTENSIONS
from arvision.data.npz import Npz
from arvision.data.transforms import to_channels, to_uint8
from arvision.errors import DataError
from arvision.evals.protocol import dataset_name
from arvision.parallel import host

# Name of the facts of an .npz file that arvision wrote, JSON as text.
FACTS = 'facts'
# The grid that `arvision sample` puts beside its images.
_GRID = 'grid.png'
# Values of `facts` of images.
_STATED = {
  'labels': ('balanced', 'random'),
  'order': ('sampled', 'shuffled'),
  'rounding': ('round',),
}


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
  """Images in a fixed order, and what is known about them.

  Attributes:
    name: short name, for the names of metrics.
    count: number of images.
    batches: size -> passes over all images, (b, H, W, 3) uint8, the same in
      every process.
    split, labels, order, seed, rounding: see `protocol.Protocol`; '' and None
      if unknown.
    preparation: how the images were resized and cropped, JSON values.
  """

  name: str
  count: int
  batches: Callable[[int], Iterator[np.ndarray]]
  split: str = ''
  labels: str = ''
  order: str = ''
  seed: int | None = None
  rounding: str = ''
  preparation: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def open_images(path: str | os.PathLike) -> ImageSet:
  """The images of a folder or of an `.npz` file, see `of_folder`, `of_npz`.

  Raises:
    DataError: there are none, or they cannot be used.
  """
  path = pathlib.Path(path)
  return of_folder(path) if path.is_dir() else of_npz(Npz(path))


def of_npz(file: Npz) -> ImageSet:
  """The images `arr_0` of a file, (n, H, W, 1 or 3) uint8.

  A file of `arvision sample` also says how they were sampled.

  Raises:
    DataError: it has no images.
  """
  if 'arr_0' not in file:
    there = ', '.join(list(file.headers)[:8])
    raise DataError(f"'{file.path}' has no images (arr_0); it has {there}")
  header = file.headers['arr_0']
  shape = header.shape
  if header.dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
    raise DataError(
      f"'{file.path}': arr_0 is {header.dtype} of shape {shape}, wanted images "
      '(n, H, W, 1 or 3) uint8'
    )
  if not header.size or shape[1] * shape[2] > MAX_PIXELS:
    raise DataError(f"'{file.path}': arr_0 of shape {shape} holds no images")

  def batches(size):
    for images in file.rows('arr_0', size):
      yield to_channels(images, 3)

  facts = facts_of(file)
  stated: dict[str, Any] = {
    name: facts[name]
    for name, values in _STATED.items()
    if facts.get(name) in values
  }
  seed = facts.get('seed')
  if type(seed) is int and 0 <= seed < 2**32:
    stated['seed'] = seed
  return ImageSet(name_of(file.path), shape[0], batches, **stated)


def facts_of(file: Npz) -> dict[str, Any]:
  """The facts in a file of arvision, {} in one of others.

  Raises:
    DataError: damaged.
  """
  text = file.text(FACTS)
  try:
    facts = json.loads(text) if text else {}
  except (ValueError, RecursionError) as error:
    raise DataError(f"'{file.path}': {FACTS} is damaged: {error}") from error
  if not isinstance(facts, dict):
    raise DataError(f"'{file.path}': {FACTS} is damaged: wanted a block")
  return facts


def of_folder(path: pathlib.Path) -> ImageSet:
  """The images of a folder and its sub-folders, in the order of their paths.

  All must have one size. The grid of `arvision sample` is left out.

  Raises:
    DataError: there are none, or one of another size.
  """
  is_image = lambda name: pathlib.Path(name).suffix.lower() in EXTENSIONS
  try:
    found, _ = files.search(path, is_image)
  except OSError as error:
    raise DataError(f"'{path}' cannot be read: {error}") from error
  names = [name for name in found if is_image(name) and name != _GRID]
  if not names:
    raise DataError(
      f"'{path}' has no images; wanted files that end in "
      + ', '.join(EXTENSIONS)
    )

  def load(name):
    return to_channels(decode(path / name, files.shown(name)), 3)

  def batches(size):
    first = load(names[0])
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      for start in range(0, len(names), size):
        part = names[start : start + size]
        images = list(pool.map(load, part))
        for name, image in zip(part, images):
          if image.shape != first.shape:
            raise DataError(
              f"'{path}': {files.shown(name)} has {_size(image)} pixels and "
              f'{files.shown(names[0])} {_size(first)}; wanted images of one '
              'size'
            )
        yield np.stack(images)

  return ImageSet(name_of(path), len(names), batches)


def of_data(
  data: Data, name: str, split: str, preparation: Mapping[str, Any]
) -> ImageSet:
  """The images of a split, as the config prepares them.

  Args:
    data: the data.
    name: its name.
    split: 'train' or 'held-out'.
    preparation: block of the config.

  Raises:
    DataError: the split is empty.
  """
  held_out = split == 'held-out'
  count = data.held_out_examples if held_out else data.examples
  if not count:
    raise DataError(
      'the data has no held-out images; set config.data.held_out_share, or '
      'use --split=train'
    )

  def batches(size):
    make = data.held_out if held_out else data.train_pass
    for batch in host.own_pass(make, size):
      images, weight = host.gather((batch['image'], batch['weight']))
      if (weight > 0).any():
        yield as_network_input(images[weight > 0])

  return ImageSet(
    name, count, batches, split=split, rounding='round', preparation=preparation
  )


def as_network_input(images: np.ndarray) -> np.ndarray:
  """Images (b, H, W, 1 or 3) in [-1, 1] -> (b, H, W, 3) uint8, see `to_uint8`.

  Raises:
    DataError: another number of channels.
  """
  if images.shape[-1] not in (1, 3):
    raise DataError(
      f'images of {images.shape[-1]} channels have no features; wanted 1 or 3'
    )
  return to_channels(to_uint8(images), 3)


def name_of(path: str | os.PathLike) -> str:
  """Name of a file or folder for the names of metrics."""
  path = pathlib.Path(path)
  stem = path.stem if path.suffix == '.npz' else path.name
  return dataset_name({'path': stem or path.resolve().name})


def _size(image):
  return f'{image.shape[0]} x {image.shape[1]}'
