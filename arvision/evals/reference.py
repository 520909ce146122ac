"""Reference statistics: what scores are distances to, with their protocol.

The file has the keys of the ADM evaluator (`mu`, `sigma`, `mu_s`, `sigma_s`),
so other tools read it too; published files of that evaluator and of pytorch-fid
are read here.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from arvision import atomic
from arvision.data.npz import Npz
from arvision.errors import ConfigError, DataError
from arvision.evals.collect import Collected, at_once, collect
from arvision.evals.features import Extractor
from arvision.evals.frechet import Moments
from arvision.evals.image_sets import (
  FACTS,
  ImageSet,
  facts_of,
  name_of,
  of_folder,
  of_npz,
)
from arvision.parallel import host

# Increment when features or files of the cache change.
_VERSION = 1
# Images whose features are kept, for precision, recall and the kernel distance.
KEPT = 10_000
_KEYS = {'pool': ('mu', 'sigma'), 'spatial': ('mu_s', 'sigma_s')}
_TEXTS = ('extractor', 'weights', 'resize', 'name', 'digest', 'split')
# What must be the same for the features of samples.
_NETWORK = ('extractor', 'weights', 'resize')


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
  """Statistics and features of a reference set.

  Attributes:
    moments: 'pool' and 'spatial' -> moments of these features.
    features: (m, d) float32 pool features of some of the images, None without.
    name: short name, for the names of metrics.
    digest: SHA-256 in hex, of the images, or of a file that does not say.
    images: number of images, 0 if unknown.
    split: 'train', 'held-out', or ''.
    extractor, weights, resize: of the network, see `protocol.Protocol`; '' if
      unknown.
    preparation: how the images were resized and cropped, JSON values.
    pictures: images of the file, whose features are computed where they are
      needed.
  """

  moments: Mapping[str, Moments]
  features: np.ndarray | None
  name: str
  digest: str
  images: int = 0
  split: str = ''
  extractor: str = ''
  weights: str = ''
  resize: str = ''
  preparation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  pictures: ImageSet | None = None

  def facts(self) -> dict[str, Any]:
    """All but the arrays, as JSON values."""
    arrays = ('moments', 'features', 'pictures')
    names = [field.name for field in dataclasses.fields(self)]
    return {k: getattr(self, k) for k in names if k not in arrays}

  def check(self, extractor: Extractor, where: str) -> None:
    """Checks that the statistics are of the features of a network.

    Args:
      extractor: the network.
      where: name of the reference, for the error.

    Raises:
      ConfigError: they are of another one, as far as the file says.
    """
    theirs = extractor.name, extractor.weights, extractor.resize
    lines = [
      f'{key}: {own!r}, {other!r}'
      for key, own, other in zip(
        _NETWORK, (self.extractor, self.weights, self.resize), theirs
      )
      if own and own != other
    ]
    if lines:
      raise ConfigError(
        f'{where} has the features of another network than --extractor: '
        + '; '.join(lines)
      )

  def with_features(
    self,
    extractor: Extractor,
    size: int | None = None,
    say: Callable[[str], None] = lambda text: None,
  ) -> 'Reference':
    """The same with features, where the file has images; see `kept`."""
    pictures = self.pictures
    if self.features is not None or pictures is None:
      return self

    def features():
      say(f'features of {pictures.count:,} images of {self.name}, once')
      batches = pictures.batches(size or at_once())
      found = collect(extractor, batches, size, ['pool'])
      return dataclasses.replace(self, features=found.kept['pool'])

    return kept({'file': self.digest}, extractor, features, say)


def make(
  extractor: Extractor,
  images: ImageSet,
  size: int | None = None,
  kept: int = KEPT,
  seed: int = 0,
) -> Reference:
  """Statistics of images.

  Args:
    extractor: the network.
    images: the images.
    size: images per call, see `collect`.
    kept: number of images whose features are kept, drawn by the seed.
    seed: see `kept`.

  Raises:
    DataError: fewer than two images.
  """
  count = min(kept, images.count)
  chosen = np.random.default_rng(seed).choice(
    images.count, count, replace=False
  )
  keep = ['pool'] if count else []
  batches = images.batches(size or at_once())
  found = collect(extractor, batches, size, keep, chosen, hashed=True)
  if found.count < 2:
    raise DataError(
      f'{images.name}: a reference needs at least 2 images, got {found.count}'
    )
  return of_collected(found, extractor, images)


def of_collected(
  found: Collected, extractor: Extractor, images: ImageSet
) -> Reference:
  """A reference from the features of images."""
  return Reference(
    moments=found.moments,
    features=found.kept.get('pool'),
    name=images.name,
    digest=found.digest,
    images=found.count,
    split=images.split,
    extractor=extractor.name,
    weights=extractor.weights,
    resize=extractor.resize,
    preparation={**images.preparation, 'size': list(found.size)},
  )


def kept(
  facts: Mapping[str, Any],
  extractor: Extractor,
  make: Callable[[], Reference],
  say: Callable[[str], None] = lambda text: None,
) -> Reference:
  """A reference from the user's cache, where it is put if it is not there.

  Args:
    facts: what it depends on besides the network, JSON values.
    extractor: the network.
    make: called if it is not there.
    say: called with lines about the progress.
  """
  network = [extractor.name, extractor.weights, extractor.resize]
  text = json.dumps([_VERSION, network, facts], sort_keys=True, default=str)
  name = hashlib.sha256(text.encode()).hexdigest()[:16]
  path = host.cache_folder() / 'references' / f'{name}.npz'
  found = None
  if path.exists():
    try:
      found = read(Npz(path))
    except DataError as error:
      say(f'reference: {error}; taking the images again')
  # Another process may have no such file, and all must work on the images.
  if host.all_agree(found is not None) and found:
    say(f'reference: {path}')
    return found
  found = make()
  if jax.process_index() == 0:
    try:
      save(path, found)
    except OSError as error:  # this evaluation can use it all the same
      say(f'reference: {path} cannot be written: {error.strerror or error}')
  return found


def save(path: pathlib.Path, reference: Reference) -> None:
  """Writes a reference atomically; OSError if it cannot be written."""
  arrays: dict[str, Any] = {
    key: value
    for kind, moments in reference.moments.items()
    for key, value in zip(_KEYS[kind], (moments.mean, moments.covariance))
  }
  if reference.features is not None:
    arrays['features'] = reference.features
  arrays[FACTS] = json.dumps(reference.facts())
  # numpy adds a suffix to a path, but not to a file.
  with atomic.whole(path) as new, new.open('wb') as file:
    np.savez(file, **arrays)


def load(
  path: str | pathlib.Path,
  extractor: Extractor,
  size: int | None = None,
  say: Callable[[str], None] = lambda text: None,
) -> Reference:
  """Reads a reference, or makes one of a folder or file of images.

  Args:
    path: a file of `arvision reference`, of the ADM evaluator or of
      pytorch-fid; a folder of images, or a file with images `arr_0`.
    extractor: the network of the samples.
    size: images per call, see `collect`.
    say: called with lines about the progress.

  Raises:
    DataError: it cannot be read.
    ConfigError: it is of another network, see `Reference.check`.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    images = of_folder(path)
  else:
    file = Npz(path)
    if 'mu' in file:
      found = read(file)
      found.check(extractor, f"'{path}'")
      return found
    images = of_npz(file)
  say(f"'{path}' has no statistics: taking those of its {images.count} images")
  return make(extractor, images, size)


def read(file: Npz) -> Reference:
  """The statistics in a file.

  Raises:
    DataError: they are damaged.
  """
  facts = facts_of(file)
  texts = {name: facts.get(name, '') for name in _TEXTS}
  images = facts.get('images', 0)
  preparation = facts.get('preparation', {})
  if (
    not all(isinstance(text, str) for text in texts.values())
    or not isinstance(preparation, dict)
    or type(images) is not int
    or (images < 2 and images != 0)
  ):
    raise DataError(f"'{file.path}': {FACTS} is damaged")
  moments = moments_of(file, images)
  if 'pool' not in moments:
    raise DataError(f"'{file.path}' has no statistics (mu and sigma)")
  features = None
  if 'features' in file:
    features = file.read('features')
    wanted = len(moments['pool'].mean)
    if features.dtype != np.float32 or features.shape[1:] != (wanted,):
      raise DataError(
        f"'{file.path}': features is {features.dtype} of shape "
        f'{features.shape}, wanted (m, {wanted}) float32'
      )
  pictures = of_npz(file) if 'arr_0' in file else None
  if not facts:
    texts |= {'name': name_of(file.path), 'digest': file.digest()}
  return Reference(
    moments=moments,
    features=features,
    images=images,
    preparation=preparation,
    pictures=pictures,
    **texts,
  )


def moments_of(file: Npz, images: int = 0) -> dict[str, Moments]:
  """The statistics of a file by kind of features, {} without any.

  Args:
    file: the file.
    images: number of images; 0 if unknown, which changes no covariance.

  Raises:
    DataError: damaged.
  """
  found = {}
  for kind, (mean_key, covariance_key) in _KEYS.items():
    if mean_key not in file:
      continue
    mean, covariance = (file.read(key) for key in (mean_key, covariance_key))
    fault = _fault(mean, covariance)
    if fault:
      raise DataError(f"'{file.path}': {mean_key}, {covariance_key}: {fault}")
    # With two images the scatter is the covariance.
    count = images or 2
    scatter = covariance.astype(np.float64) * (count - 1)
    found[kind] = Moments(count, mean.astype(np.float64), scatter)
  return found


def _fault(mean, covariance):
  width = mean.size
  if mean.shape != (width,) or not width or mean.dtype.kind != 'f':
    return f'a mean of shape {mean.shape}, {mean.dtype}'
  if covariance.shape != (width, width) or covariance.dtype.kind != 'f':
    return (
      f'a covariance of shape {covariance.shape}, {covariance.dtype}; wanted '
      f'({width}, {width}) of floats'
    )
  scale = float(np.abs(covariance).max())
  if (np.diag(covariance) < 0).any() or not np.allclose(
    covariance, covariance.T, rtol=1e-3, atol=1e-3 * scale
  ):
    return 'no covariance: it is not symmetric, or has negative variances'
  return ''
