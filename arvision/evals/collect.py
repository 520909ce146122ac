"""Features of many images, streamed into moments."""

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Iterator

import jax
import numpy as np

from arvision.errors import ConfigError
from arvision.evals.base import pad
from arvision.evals.features import Extractor, Features
from arvision.evals.frechet import Moments
from arvision.parallel import host

# Features that are added to the moments at once. The size of the batches that
# they come in changes no bit of the moments.
_BLOCK = 4096
# Images per call and device.
_PER_DEVICE = 64
KINDS = ('pool', 'spatial', 'logits')


@dataclasses.dataclass(frozen=True, eq=False)
class Collected:
  """Features of a set of images.

  Attributes:
    moments: 'pool' and 'spatial' -> moments of these features.
    kept: kind -> (m, ...) float32 features, of all images or of some.
    count: number of images.
    size: (H, W) of the images.
    digest: SHA-256 of the images in hex, '' if it was not asked for.
  """

  moments: dict[str, Moments]
  kept: dict[str, np.ndarray]
  count: int
  size: tuple[int, int]
  digest: str


def collect(
  extractor: Extractor,
  batches: Iterable[np.ndarray],
  size: int | None = None,
  keep: Collection[str] = (),
  chosen: np.ndarray | None = None,
  hashed: bool = False,
) -> Collected:
  """Computes the features of images on all devices of all processes.

  Args:
    extractor: the network.
    batches: images (b, H, W, 3) uint8, the same in every process. Their sizes
      change nothing.
    size: images per call of the network; None: `at_once()`.
    keep: kinds of features that are kept, of `KINDS`.
    chosen: indices of the images whose features are kept; None for all.
    hashed: whether to hash the images, which takes as long as reading them.

  Raises:
    ConfigError: no image, or features that are not finite.
  """
  sums = {'pool': _Sums(), 'spatial': _Sums()}
  kept: dict[str, list[np.ndarray]] = {name: [] for name in keep}
  digest, count, shape = hashlib.sha256(), 0, (0, 0)
  size = size or at_once()
  for images in _in_calls(batches, size):
    for image in images if hashed else ():
      digest.update(repr(image.shape).encode())
      digest.update(np.ascontiguousarray(image).data)
    features = _features(extractor, images, size)
    for name, total in sums.items():
      if name in features:
        total.add(features[name])
    index = np.arange(count, count + len(images))
    rows = slice(None) if chosen is None else np.isin(index, chosen)
    for name, parts in kept.items():
      if name in features:
        parts.append(features[name][rows])
    count, shape = count + len(images), images.shape[1:3]
  if not count:
    raise ConfigError('there are no images to take features of')
  return Collected(
    {name: total.moments() for name, total in sums.items() if total},
    {name: np.concatenate(parts) for name, parts in kept.items() if parts},
    count,
    shape,
    digest.hexdigest() if hashed else '',
  )


def at_once() -> int:
  """Images per call of a network, on all devices of all processes."""
  return _PER_DEVICE * jax.device_count()


def _in_calls(batches, size) -> Iterator[np.ndarray]:
  """The same images, `size` at a time; the last ones may be fewer."""
  waiting: list[np.ndarray] = []
  for images in batches:
    waiting.append(images)
    if sum(map(len, waiting)) >= size:
      images = np.concatenate(waiting)
      whole = len(images) // size * size
      yield from np.split(images[:whole], whole // size)
      waiting = [images[whole:]]
  if sum(map(len, waiting)):
    yield np.concatenate(waiting)


def _features(extractor, images, size) -> dict[str, np.ndarray]:
  """The features of a batch by kind, in every process."""

  def compute(x):
    found: Features = extractor(x)
    values = {name: getattr(found, name) for name in KINDS}
    return {
      name: np.asarray(value, np.float32)
      for name, value in values.items()
      if value is not None
    }

  found = host.divide(compute, pad(images, size))
  for name, value in found.items():
    if value.ndim != 2 or not np.isfinite(value).all():
      raise ConfigError(
        f'{extractor.name}: {name} features of shape {value.shape} that are '
        'not finite vectors; its weights may be of another network'
      )
  return {name: value[: len(images)] for name, value in found.items()}


class _Sums:
  """Moments of rows that come in pieces, added in blocks of one size."""

  def __init__(self):
    self._moments: Moments | None = None
    self._waiting: list[np.ndarray] = []

  def __bool__(self):
    return self._moments is not None or bool(self._waiting)

  def add(self, rows):
    self._waiting.append(rows)
    while sum(map(len, self._waiting)) >= _BLOCK:
      rows = np.concatenate(self._waiting)
      self._flush(rows[:_BLOCK])
      self._waiting = [rows[_BLOCK:]]

  def _flush(self, rows):
    self._moments = (
      self._moments.add(rows) if self._moments else Moments.of(rows)
    )

  def moments(self):
    rows = np.concatenate(self._waiting) if self._waiting else ()
    if len(rows):
      self._flush(rows)
    self._waiting = []
    return self._moments
