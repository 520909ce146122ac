"""The nearest training images of samples: does a model copy what it saw?"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from arvision.errors import ConfigError
from arvision.evals.base import Run, pad
from arvision.evals.classifier import Recipe
from arvision.evals.features import Extractor
from arvision.evals.generation import at_once, sample_batches
from arvision.evals.image_sets import as_network_input
from arvision.evals.protocol import Protocol, size_name
from arvision.parallel import host
from arvision.ranges import Count, Many, Share

_AT_ONCE = 100


@dataclasses.dataclass(frozen=True)
class Neighbours:
  """Distances of samples to their nearest training images, in three spaces.

  `pixels` are compared by the root mean squared error of images on [0, 1],
  `tokens` by the share of codes that differ, and features by their Euclidean
  distance. Held-out images have nearest training images too, which were not
  copied: their distances say what is near.

  Attributes:
    samples: number of samples, balanced over classes.
    shown: number of samples in the picture, those with the nearest pixels.
    quantile: a sample is a copy if it is nearer to its training image than
      this share of the held-out images is to theirs. Of a model that copies
      nothing, about the same share of samples is called a copy.
    extractor: network of the features; None: the classifier of `recipe`.
    recipe: how the classifier is trained.
    batch_size: images per call. None: up to 100, as many as fit into memory.
    every: see `Evaluator`.
  """

  samples: Many = 200
  shown: Count = 12
  quantile: Share = 0.05
  extractor: Extractor | None = None
  recipe: Recipe = Recipe()
  batch_size: Count | None = None
  every: Mapping[str, float] | None = None
  needs: ClassVar[tuple[str, ...]] = ('sample_fn',)

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Samples, and passes once over the training images.

    Yields:
      `nearest_<space>`: mean distance of a sample to its nearest training
        image.
      `nearest_<space>_of_held_out`: the same for held-out images.
      `copied_<space>`: share of samples that are copies, see `quantile`.
      The latter two need a held-out split.

    Raises:
      ConfigError: the data has no training image.
    """
    run.say(f'nearest training images of {self.samples} samples')
    images, tokens = self._sampled(run)
    count = len(images)
    held_out = self._held_out(run, count)
    spaces = self._spaces(run)
    near = {}
    for space in spaces:
      rows = [space.of(images, tokens)]
      if len(held_out):
        rows.append(space.of(held_out, None))
      near[space.name] = Nearest(np.concatenate(rows), space.distance)
    batches = host.own_pass(run.data.train_pass, self.batch_size or _AT_ONCE)
    for batch in batches:
      image, weight = host.gather((batch['image'], batch['weight']))
      image = np.asarray(image[weight > 0], np.float32)
      for space in spaces:
        near[space.name].update(space.of(image, None), image)
    if not near['pixels'].seen:
      raise ConfigError('the data has no training image')
    for space in spaces:
      found = near[space.name].distance
      yield self._named(run, space, f'nearest_{space.name}', found[:count])
      if len(held_out):
        other = found[count:]
        name = f'nearest_{space.name}_of_held_out'
        yield self._named(run, space, name, other, labels='')
        limit = np.quantile(other, self.quantile)
        copied = found[:count] < limit
        yield self._named(run, space, f'copied_{space.name}', copied)
    order = np.argsort(near['pixels'].distance[:count])[: self.shown]
    shown = {'sample': images[order]}
    for space in spaces:
      shown[f'by {space.name}'] = near[space.name].image[order]
    run.show('neighbours', shown)

  def _sampled(self, run):
    """Samples (n, H, W, C), and their tokens (n, t), None without codes."""
    labels = np.arange(self.samples, dtype=np.int32) % max(run.classes, 1)
    assert run.sample_fn is not None  # see `needs`
    sample = run.sample_fn(self.batch_size)
    size = at_once(sample, self.samples, self.batch_size, _AT_ONCE)
    batches = [*sample_batches(sample, labels, size)]
    images = np.concatenate([batch.images for batch in batches])
    if run.encode_sampled is None:
      return images, None
    return images, np.concatenate([batch.tokens for batch in batches])

  def _held_out(self, run, count):
    """The first held-out images, at most `count`."""
    found: list[np.ndarray] = []
    if run.data.held_out_examples:
      size = self.batch_size or _AT_ONCE
      for batch in host.own_pass(run.data.held_out, size):
        image, weight = host.gather((batch['image'], batch['weight']))
        found.append(np.asarray(image[weight > 0], np.float32))
        if sum(map(len, found)) >= count:
          break
    return np.concatenate(found)[:count] if found else np.zeros((0,))

  def _spaces(self, run) -> list['Space']:
    size = self.batch_size or _AT_ONCE

    def divided(function):
      """Calls a function with batches of one size, on all devices."""

      def call(images, tokens):
        del tokens
        parts = [
          host.divide(function, pad(images[i : i + size], size))
          for i in range(0, len(images), size)
        ]
        return np.concatenate(parts)[: len(images)]

      return call

    pixels = lambda images, tokens: images.reshape(len(images), -1) / 2
    spaces = [Space('pixels', pixels, _root_mean_square)]
    if encode := run.encode_sampled:
      encoded = divided(encode)
      codes = lambda images, tokens: (
        encoded(images, None) if tokens is None else tokens
      )
      spaces.append(Space('tokens', codes, _differing))
    extractor = self.extractor
    if extractor is not None:
      pool = lambda images: extractor(as_network_input(images)).pool
      name, digest = extractor.name, extractor.weights
      spaces.append(Space('features', divided(pool), _euclidean, name, digest))
    elif (classifier := run.classifier(self.recipe)) is not None:
      features = divided(lambda images: classifier(images)[0])
      spaces.append(
        Space('features', features, _euclidean, 'classifier', classifier.digest)
      )
    return spaces

  def _named(self, run, space, figure, values, **changes):
    protocol = Protocol(
      extractor=space.extractor or space.name,
      weights=space.weights,
      reference=f'{run.name}-{size_name(run.data.shape)}',
      reference_digest=run.data.digest,
      split='train',
      reference_images=run.data.examples,
      images=len(values),
      labels='balanced' if run.classes else '',
      order='',
      rounding='none',
      method=f'quantile {self.quantile}' if 'copied' in figure else '',
    )
    protocol = dataclasses.replace(protocol, **changes)
    run.note(protocol.name, protocol.facts())
    return f'{figure}/{protocol.name}', float(np.mean(values))


@dataclasses.dataclass(frozen=True)
class Space:
  """A space in which images are compared.

  Attributes:
    name: 'pixels', 'tokens' or 'features'.
    of: images (n, H, W, C) in [-1, 1], and their tokens or None, -> (n, d).
    distance: (n, d), (m, d) -> (n, m).
    extractor, weights: see `Protocol`.
  """

  name: str
  of: Callable[[np.ndarray, Any], np.ndarray]
  distance: Callable[[np.ndarray, np.ndarray], np.ndarray]
  extractor: str = ''
  weights: str = ''


class Nearest:
  """The nearest of many images, which come in batches.

  Attributes:
    distance: (n,) to the nearest image so far.
    image: (n, H, W, C) that image.
    seen: number of images so far.
  """

  def __init__(self, rows: np.ndarray, between: Callable):
    """Takes rows (n, d), whose neighbours are wanted, and their distance."""
    self._rows, self._between = rows, between
    self.distance = np.full(len(rows), np.inf)
    self.image = np.zeros(len(rows), np.float32)
    self.seen = 0

  def update(self, rows: np.ndarray, images: np.ndarray) -> None:
    """Adds images (m, H, W, C) with their rows (m, d)."""
    if not len(rows):
      return
    if not self.seen:
      self.image = np.zeros((len(self._rows), *images.shape[1:]), np.float32)
    distance = self._between(self._rows, rows)
    best = distance.argmin(axis=1)
    least = distance[np.arange(len(best)), best]
    nearer = least < self.distance
    self.distance[nearer] = least[nearer]
    self.image[nearer] = images[best[nearer]]
    self.seen += len(rows)


def _euclidean(a, b):
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
  return np.sqrt(np.clip(squares, 0, None))


def _root_mean_square(a, b):
  return _euclidean(a, b) / np.sqrt(a.shape[1])


def _differing(a, b):
  """Share of the codes that differ."""
  same = np.zeros((len(a), len(b)), np.int64)
  for column in range(a.shape[1]):
    same += a[:, column, None] == b[:, column]
  return 1 - same / a.shape[1]
