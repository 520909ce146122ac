"""How good and how new generated images are, and how fast they come."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from arvision.build import ConfigError
from arvision.data.base import Data
from arvision.evals.classifier import Classifier, features_of
from arvision.evals.frechet import Moments, frechet_distance
from arvision.evals.protocol import Metrics, pad, size_name

# labels (b,), index (b,) -> images (b, H, W, C) in [-1, 1], tokens (b, t) or
# (b, t, c). `index` is the number of the sample, the same for any batching.
SampleFn = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Samples:
  """What was drawn.

  Attributes:
    images: (n, H, W, C) float32, clipped to [-1, 1].
    tokens: (n, t) or (n, t, c).
    labels: (n,) int32 the classes that were asked for.
    seconds: of one call, on average; the first call, which compiles, is left
      out, and None where there was no other.
    batch_size: of a call.
  """

  images: np.ndarray
  tokens: np.ndarray
  labels: np.ndarray
  seconds: float | None
  batch_size: int


@dataclasses.dataclass(frozen=True)
class Generation:
  """Fréchet distance, class accuracy, memorised share and speed of samples.

  Attributes:
    dataset: name of the data, for the names of the metrics.
    samples: how many are drawn, classes balanced.
    batch_size: of a call; every call has this size.
  """

  dataset: str
  samples: int = 1000
  batch_size: int = 100

  def __post_init__(self):
    if self.samples < 2 or self.batch_size < 1:
      raise ConfigError(
        f'--samples={self.samples} --batch_size={self.batch_size}: wanted at '
        'least 2 samples and a batch of at least 1'
      )

  def run(
    self,
    data: Data,
    sample: SampleFn,
    classifier: Classifier | None,
    encode: Callable[[Any], Any] | None,
  ) -> Metrics:
    """Draws samples and measures them.

    Args:
      data: the training images, against which samples are held.
      sample: draws images of given classes.
      classifier: None leaves out what needs one (data without classes).
      encode: the tokenizer's, (b, H, W, C) -> tokens; None leaves out
        `memorised`, which means nothing for continuous tokens.

    Returns:
      `frechet`: distance of Gaussians over the classifier's features, samples
        against all training images, in squared units of these features.
      `frechet_of_held_out`: the same for held-out images instead of samples:
        what real images score.
      `class_accuracy`: share of samples that get the class they were asked
        for.
      `memorised`: share of samples whose tokens equal those of a training
        image, all of them.
      `sampling_images_per_second`: tokens and decoding, compilation left out.
    """
    drawn = draw(sample, data.num_classes, self.samples, self.batch_size)
    return self.measure(drawn, data, classifier, encode)

  def measure(
    self,
    drawn: Samples,
    data: Data,
    classifier: Classifier | None,
    encode: Callable[[Any], Any] | None,
  ) -> Metrics:
    """`run` for samples that are there already."""
    place = f'{self.dataset}-{size_name(data.shape)}'
    count = len(drawn.images)
    metrics: Metrics = {}
    if drawn.seconds:
      name = f'sampling_images_per_second/batch-{drawn.batch_size}'
      metrics[name] = drawn.batch_size / drawn.seconds
    if classifier is not None:
      size = self.batch_size
      features, logits = features_of(classifier, drawn.images, size)
      right = np.argmax(logits, axis=-1) == drawn.labels
      metrics[f'class_accuracy/classifier-{place}-{count}'] = float(
        np.mean(right)
      )
      real = feature_moments(classifier, data.train_pass(size))
      metrics[f'frechet/classifier-{place}-{count}'] = frechet_distance(
        Moments.of(features), real
      )
      if data.held_out_examples > 1:
        held_out = feature_moments(classifier, data.held_out(size))
        name = f'frechet_of_held_out/classifier-{place}-{held_out.count}'
        metrics[name] = frechet_distance(held_out, real)
    if encode is not None:
      seen = seen_tokens(encode, data.train_pass(self.batch_size))
      metrics[f'memorised/{place}-{count}'] = memorised(drawn.tokens, seen)
    return metrics


def draw(
  sample: SampleFn, classes: int, count: int, batch_size: int
) -> Samples:
  """Draws `count` images, classes 0, 1, ..., classes - 1, 0, ... in turn.

  Where one call is enough for all of them, it is made twice to be timed.
  """
  labels = np.arange(count, dtype=np.int32) % max(classes, 1)
  drawn = draw_labels(sample, labels, batch_size)
  if drawn.seconds is not None:
    return drawn
  begin = time.perf_counter()
  draw_labels(sample, labels, batch_size)
  return dataclasses.replace(drawn, seconds=time.perf_counter() - begin)


def draw_labels(
  sample: SampleFn, labels: np.ndarray, batch_size: int
) -> Samples:
  """Draws one image per label, in calls of one shape.

  Args:
    sample: see `SampleFn`.
    labels: (n,) int32; the place of a label is the `index` of its sample.
    batch_size: of a call; the last one is filled up, the surplus dropped.
  """
  count = len(labels)
  index = np.arange(count, dtype=np.int32)
  starts = range(0, count, batch_size)

  def call(start):
    part = slice(start, start + batch_size)
    images, tokens = sample(
      pad(labels[part], batch_size), pad(index[part], batch_size)
    )
    return np.asarray(images), np.asarray(tokens)

  parts = [call(starts[0])]
  begin = time.perf_counter()
  parts += [call(start) for start in starts[1:]]
  seconds = time.perf_counter() - begin
  images = np.concatenate([p[0] for p in parts])[:count]
  tokens = np.concatenate([p[1] for p in parts])[:count]
  images = np.clip(images.astype(np.float32), -1, 1)
  each = seconds / (len(parts) - 1) if len(parts) > 1 else None
  return Samples(images, tokens, labels, each, batch_size)


def feature_moments(classifier: Classifier, batches: Iterable) -> Moments:
  """Moments of the features of a pass over images."""
  moments = None
  for batch in batches:
    features = classifier(batch['image'])[0][batch['weight'] > 0]
    moments = moments.add(features) if moments else Moments.of(features)
  if moments is None:
    raise ConfigError('the pass over the data gave no batch')
  return moments


def seen_tokens(encode: Callable[[Any], Any], batches: Iterable) -> set[bytes]:
  """Digests of the tokens of all images of a pass.

  Batches that hold `tokens` are taken as they are.
  """
  seen: set[bytes] = set()
  for batch in batches:
    tokens = batch['tokens'] if 'tokens' in batch else encode(batch['image'])
    seen.update(_digests(np.asarray(tokens)[batch['weight'] > 0]))
  return seen


def memorised(tokens: np.ndarray, seen: set[bytes]) -> float:
  """Share of rows (n, t) of int tokens that `seen` holds."""
  hits = [digest in seen for digest in _digests(tokens)]
  return sum(hits) / max(len(hits), 1)


def _digests(tokens):
  rows = np.ascontiguousarray(tokens, np.int32).reshape(len(tokens), -1)
  return [hashlib.blake2b(r.tobytes(), digest_size=16).digest() for r in rows]
