"""Evaluates samples: Fréchet distance, class accuracy, memorization, speed."""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from arvision.errors import ConfigError
from arvision.evals.base import Run, pad
from arvision.evals.bounds import equal_number, few, frechet_interval
from arvision.evals.classifier import Classifier, Recipe
from arvision.evals.frechet import Moments
from arvision.evals.protocol import Protocol, size_name
from arvision.parallel import host
from arvision.ranges import Count, Many
from arvision.structs import Array

# Default images per call.
_AT_ONCE = 100
# labels (b,), index (b,) -> images (b, H, W, C) in [-1, 1], tokens (b, t) or
# (b, t, c). `index` is the number of the sample, independent of batching.
SampleFn = Callable[[np.ndarray, np.ndarray], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class SampleBatch:
  """The samples of one call of a `SampleFn`.

  Attributes:
    images: (b, H, W, C) float32, clipped to [-1, 1].
    tokens: (b, t) or (b, t, c).
    labels: (b,) int32 requested classes.
    seconds: time of the call; the first one compiles.
    index: (b,) int32 numbers of the samples.
  """

  images: np.ndarray
  tokens: np.ndarray
  labels: np.ndarray
  seconds: float
  index: np.ndarray


def sample_batches(
  sample: SampleFn,
  labels: np.ndarray,
  batch_size: int,
  order: np.ndarray | None = None,
) -> Iterator[SampleBatch]:
  """Samples one image per label, in calls of one shape, divided by processes.

  Args:
    sample: see `SampleFn`.
    labels: (n,) int32; sample i has the class labels[i].
    batch_size: images per call; the last call is padded.
    order: (n,) permutation of the samples; None: sample 0 first.

  Yields:
    the samples of every call, without padding.
  """
  order = np.arange(len(labels)) if order is None else order
  for start in range(0, len(labels), batch_size):
    index = order[start : start + batch_size].astype(np.int32)
    wanted = labels[index]
    begin = time.perf_counter()
    images, tokens = host.divide(
      sample, pad(wanted, batch_size), pad(index, batch_size)
    )
    images = np.asarray(images, np.float32)
    seconds = time.perf_counter() - begin
    count = len(wanted)
    images = np.clip(images[:count], -1, 1)
    yield SampleBatch(images, tokens[:count], wanted, seconds, index)


def at_once(
  sample: Any, count: int, asked: int | None = None, most: int = 64
) -> int:
  """Images per call of `sample_batches`, the same in all processes.

  Args:
    sample: a `SampleFn` with a method `fit`: the number of images, up to the
      given one, that fit into memory.
    count: images of all calls.
    asked: images per call; None: as many as fit into memory.
    most: largest number per call.
  """
  if asked:
    return min(asked, count)
  # Equal sizes, so that no call is padded.
  size = -(-count // -(-count // most))
  processes = jax.process_count()
  return min(size, host.least(sample.fit(-(-size // processes))) * processes)


@dataclasses.dataclass(frozen=True)
class Generation:
  """Fréchet distance, class accuracy, memorized share and speed of samples.

  Attributes:
    samples: number of samples, balanced over classes.
    batch_size: images per call. None: up to 100, as many as fit into memory.
    recipe: how the classifier is trained.
    every: see `Evaluator`.
  """

  samples: Many = 1000
  batch_size: Count | None = None
  recipe: Recipe = Recipe()
  every: Mapping[str, float] | None = None
  needs: ClassVar[tuple[str, ...]] = ('sample_fn',)

  def __post_init__(self):
    if self.samples < 2:
      raise ConfigError(
        f'--samples={self.samples} (or config.evals.*.samples): wanted at least '
        '2 samples'
      )

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Samples and measures, with the samples of one call in memory at a time.

    A Fréchet distance falls with the number of images, so samples and held-out
    images are compared in sets of one number, which the names state.

    Yields:
      `classifier_accuracy`: accuracy of the classifier on held-out images.
      `frechet`: Fréchet distance between samples and all training images in the
        classifier's features, in squared units of these features: the mean over
        sets of as many samples as there are held-out images, or fewer; then, if
        there are more samples, of all of them, under its own number.
      `frechet_low`, `frechet_high`: where 95 % of other sets of as many samples
        are, by a bootstrap.
      `frechet_of_held_out`: the same as `frechet` for held-out images instead
        of samples, as a reference.
      `class_accuracy`: share of samples that the classifier assigns to their
        requested class.
      `memorised`: share of samples with exactly the tokens of a training image.
      `sampling_images_per_second`: sampling and decoding, without compilation.
    """
    data, encode = run.data, run.encode_sampled
    classifier = run.classifier(self.recipe)
    if classifier is not None:
      yield from classifier.metrics(data, run.name).items()
    run.say(f'sampling {self.samples} images')
    place = f'{run.name}-{size_name(data.shape)}'
    labels = np.arange(self.samples, dtype=np.int32) % max(run.classes, 1)
    assert run.sample_fn is not None  # see `needs`
    sample = run.sample_fn(self.batch_size)
    size = at_once(sample, self.samples, self.batch_size, _AT_ONCE)
    features: list[np.ndarray] = []
    right = 0
    digests: list[bytes] = []
    seconds = []
    for batch in sample_batches(sample, labels, size):
      seconds.append(batch.seconds)
      if encode is not None:
        digests += _digests(batch.tokens)
      if classifier is not None:
        found, logits = host.divide(classifier, pad(batch.images, size))
        features.append(found[: len(batch.labels)])
        best = np.argmax(logits[: len(batch.labels)], axis=-1)
        right += int(np.sum(best == batch.labels))
    # The first call compiles. If it is the only one, time another.
    timed = seconds[1:] or [next(sample_batches(sample, labels, size)).seconds]
    speed = size * len(timed) / sum(timed)
    yield f'sampling_images_per_second/batch-{size}', speed
    if classifier is not None:
      if run.classes:
        yield self._named(
          run, classifier, 'class_accuracy', right / self.samples
        )
      yield from self._distances(
        run, classifier, np.concatenate(features), size
      )
    if encode is not None:
      seen = seen_tokens(encode, host.own_pass(data.train_pass, size))
      share = sum(d in seen for d in digests) / self.samples
      yield f'memorised/{place}-{self.samples}', share

  def _distances(self, run, classifier, features, size):
    """The Fréchet distances of samples with these features."""
    own_pass = lambda part: _features(classifier, host.own_pass(part, size))
    real = feature_moments(own_pass(run.data.train_pass))
    count, held_out = len(features), features[:0]
    if run.data.held_out_examples > 1:
      held_out = np.concatenate([*own_pass(run.data.held_out)])
      count = min(count, len(held_out))
    named = functools.partial(self._named, run, classifier)
    distance = equal_number(features, real, count)
    interval = frechet_interval(features, real, count)
    yield named('frechet', distance, count)
    yield named('frechet_low', interval.low, count)
    yield named('frechet_high', interval.high, count)
    text = (
      f'Fréchet distance of sets of {count} samples: {distance:.3g}, other sets '
      f'{interval.low:.3g} to {interval.high:.3g} (95 %)'
    )
    if len(held_out):
      other = equal_number(held_out, real, count)
      yield named('frechet_of_held_out', other, count, labels='')
      text += f'; of {count} held-out images: {other:.3g}'
    if count < len(features):
      yield named('frechet', equal_number(features, real, len(features)))
    run.say(text)
    if warning := few(count, 'images of a set'):
      run.say(warning)

  def _named(self, run, classifier, figure, value, images=None, **changes):
    """(name of a figure in the classifier's features, value)."""
    protocol = Protocol(
      extractor='classifier',
      weights=classifier.digest,
      reference=f'{run.name}-{size_name(run.data.shape)}',
      reference_digest=run.data.digest,
      split='train',
      reference_images=run.data.examples,
      images=images or self.samples,
      labels='balanced' if run.classes else '',
      order='',
      rounding='none',
    )
    protocol = dataclasses.replace(protocol, **changes)
    run.note(protocol.name, protocol.facts())
    return f'{figure}/{protocol.name}', value


def _features(
  classifier: Classifier, batches: Iterable
) -> Iterator[np.ndarray]:
  """(b, f) features of the images of every batch, see `host.own_pass`."""
  for batch in batches:
    features, weight = host.gather(
      (classifier(batch['image'])[0], batch['weight'])
    )
    yield features[weight > 0]


def feature_moments(batches: Iterable[np.ndarray]) -> Moments:
  """Moments of features (b, f) of all batches."""
  moments = None
  for features in batches:
    moments = moments.add(features) if moments else Moments.of(features)
  if moments is None:
    raise ConfigError('the data has no batch')
  return moments


def seen_tokens(
  encode: Callable[[Array], Array], batches: Iterable
) -> set[bytes]:
  """Digests of the tokens of all images in a pass, see `host.own_pass`.

  Batches with `tokens` are not encoded.
  """
  seen: set[bytes] = set()
  for batch in batches:
    tokens = batch['tokens'] if 'tokens' in batch else encode(batch['image'])
    tokens, weight = host.gather((tokens, batch['weight']))
    seen.update(_digests(tokens[weight > 0]))
  return seen


def _digests(tokens):
  rows = np.ascontiguousarray(tokens, np.int32).reshape(len(tokens), -1)
  return [hashlib.blake2b(r.tobytes(), digest_size=16).digest() for r in rows]
