"""Evaluates samples by the distribution of their features: FID and the like."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np

from arvision.evals import reference as references
from arvision.evals.base import Run
from arvision.evals.bounds import few
from arvision.evals.collect import collect
from arvision.evals.features import Extractor
from arvision.evals.generation import at_once, sample_batches
from arvision.evals.image_sets import ImageSet, as_network_input, of_data
from arvision.evals.reference import Reference
from arvision.evals.scoring import Scoring
from arvision.ranges import Count, Many

_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Distribution(Scoring):
  """FID, sFID, Inception score, KID, precision and recall of samples.

  Attributes:
    extractor: network of the features, for example `inception.Inception`; None:
      the figures are not available.
    reference: file of `arvision reference` or of the ADM evaluator, or a folder
      of images; '' for the training images of the run.
    samples: number of samples.
    labels: classes of the samples: 'balanced', or 'random' by the seed.
    batch_size: samples per call. None: up to 64, as many as fit into memory.
    every: see `base.Evaluator`.
  """

  shuffle: bool = True
  extractor: Extractor | None = None
  reference: str = ''
  samples: Many = 50_000
  labels: Literal['balanced', 'random'] = 'balanced'
  batch_size: Count | None = None
  every: Mapping[str, float] | None = None
  needs: ClassVar[tuple[str, ...]] = ('sample_fn',)

  @property
  def missing(self) -> str:
    """Why the figures are not available, '' if they are."""
    if self.extractor is None:
      lacking = 'there is no network of features'
    else:
      lacking = getattr(self.extractor, 'missing', '')
    return lacking and (
      f'not available: {lacking}; give --extractor=inception-adm:FILE, or set '
      'extractor in this block of config.evals'
    )

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Samples and compares, with the samples of one call in memory at a time.

    Yields:
      `<figure>/<protocol>` of every figure.
    """
    extractor = self.extractor
    if extractor is None or self.missing:
      run.say(self.missing)
      return
    reference = self._reference(run, extractor)
    images = self._samples(run)
    for count, what in (
      (self.samples, 'samples'),
      (reference.images, 'images'),
    ):
      if warning := few(count, what) if count else '':
        run.say(warning)
    run.say(f'sampling {self.samples} images for {extractor.name}')
    found = collect(extractor, images.batches(_AT_ONCE), keep=self.keep)
    if 'pool' in self.keep:
      reference = reference.with_features(extractor, say=run.say)
    made = []
    for figure, value, protocol in self.scores(
      found, reference, images, extractor
    ):
      made.append(figure)
      run.note(protocol.name, protocol.facts())
      yield f'{figure}/{protocol.name}', value
    if lost := self.lacking(made):
      run.say(lost)

  def _samples(self, run) -> ImageSet:
    labels = np.arange(self.samples, dtype=np.int32) % max(run.classes, 1)
    if self.labels == 'random':
      draws = np.random.default_rng(self.seed)
      labels = draws.integers(0, max(run.classes, 1), self.samples, np.int32)
    assert run.sample_fn is not None  # see `needs`
    sample = run.sample_fn(self.batch_size)
    size = at_once(sample, self.samples, self.batch_size, _AT_ONCE)

    def batches(_):
      for batch in sample_batches(sample, labels, size):
        yield as_network_input(batch.images)

    return ImageSet(
      run.name,
      self.samples,
      batches,
      labels=self.labels if run.classes else '',
      order='sampled',
      seed=self.seed,
      rounding='round',
    )

  def _reference(self, run, extractor) -> Reference:
    if self.reference:
      return references.load(self.reference, extractor, say=run.say)
    images = of_data(run.data, run.name, 'train', run.preparation)
    return _of_run(images, extractor, run)


def _of_run(images: ImageSet, extractor: Extractor, run: Run) -> Reference:
  """Statistics of the training images of a run, computed once and kept."""
  facts = {
    'data': [run.name, run.data.digest, list(run.data.shape)],
    'preparation': run.preparation,
  }

  def make():
    run.say(f'features of {images.count:,} training images, once')
    return references.make(extractor, images)

  return references.kept(facts, extractor, make, run.say)
