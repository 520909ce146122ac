"""Scores of features: FID and its relatives, each with its protocol."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from arvision.build import suggest
from arvision.errors import ConfigError, DataError
from arvision.evals.bounds import fid_infinity, frechet_interval
from arvision.evals.collect import Collected
from arvision.evals.features import Extractor
from arvision.evals.frechet import Moments, frechet_distance
from arvision.evals.image_sets import ImageSet
from arvision.evals.inception_score import inception_score, split_score
from arvision.evals.kernel_distance import kernel_distance
from arvision.evals.manifold import manifold
from arvision.evals.protocol import Protocol
from arvision.evals.reference import Reference
from arvision.ranges import Count, Seed

FIGURES = (
  'fid',
  'fid_interval',
  'fid_infinity',
  'sfid',
  'inception_score',
  'kid',
  'precision',
  'recall',
  'density',
  'coverage',
)
_MANIFOLD = FIGURES[-4:]
# Without what takes many times as long as a distance.
USUAL = tuple(name for name in FIGURES if name != 'fid_infinity')
# Kinds of features that figures keep of every image.
_KEPT = {'inception_score': 'logits', 'kid': 'pool'}
_KEPT |= dict.fromkeys((*_MANIFOLD, 'fid_interval', 'fid_infinity'), 'pool')
_BLOCK, _SPLITS, _SUBSETS, _SUBSET = 5000, 10, 100, 1000


@dataclasses.dataclass(frozen=True)
class Scoring:
  """Which figures are computed, and how.

  Attributes:
    figures: of `FIGURES`. `fid`: Fréchet distance of pooled features;
      `fid_interval`: where 95 % of the distances of other sets of as many
      images are, `fid_low` and `fid_high`; `fid_infinity`: the distance at
      infinitely many images; `sfid`: of spatial features; `inception_score`; `kid`: kernel distance;
      `precision`, `recall`, `density`, `coverage`: by nearest neighbours.
    splits: how the images of the Inception score are divided: 'blocks' of 5,000
      (ADM), or 10 'splits' after a fixed shuffle (torch-fidelity).
    distances: dtype of distances between neighbours; 'float16' repeats the
      rounding of the ADM evaluator.
    neighbours: k of precision, recall, density and coverage.
    shuffle: shuffle the images by the seed before they are divided into blocks.
    seed: of shuffles, of random labels, and of subsets.
  """

  figures: tuple[str, ...] = USUAL
  splits: Literal['blocks', 'splits'] = 'blocks'
  distances: Literal['float32', 'float16'] = 'float32'
  neighbours: Count = 3
  shuffle: bool = False
  seed: Seed = 0

  def __post_init__(self):
    for name in self.figures:
      if name not in FIGURES:
        raise ConfigError(
          f'--figures (or config.evals.*.figures): {name!r} is unknown.'
          + suggest(name, FIGURES)
        )

  @property
  def keep(self) -> set[str]:
    """Kinds of features that must be kept of every image."""
    return {_KEPT[name] for name in self.figures if name in _KEPT}

  def lacking(self, found: Iterable[str]) -> str:
    """A line about figures that were left out of `scores`, '' if none was.

    Args:
      found: names of the figures that it yielded.
    """
    made = {name.replace('_low', '_interval') for name in found}
    lost = [name for name in self.figures if name not in made]
    if not lost:
      return ''
    return (
      f'not available: {", ".join(lost)}; the network or the reference does not '
      'have the features'
    )

  def check_order(self, images: ImageSet) -> None:
    """Refuses an Inception score of images in an unknown order.

    Raises:
      ConfigError: with a way out.
    """
    matters = 'inception_score' in self.figures and self.splits == 'blocks'
    if matters and images.count and not (self.shuffle or images.order):
      others = ','.join(n for n in self.figures if n != 'inception_score')
      raise ConfigError(
        f"--images: the order of '{images.name}' is unknown, and the Inception "
        f'score depends on it: it is a mean over blocks of {_BLOCK:,} images, '
        'and blocks that are sorted by class hold few classes (FID does not '
        'depend on the order). Use --order=shuffle to shuffle the images by '
        '--seed, --order=file if the file is in random order, or '
        f'--figures={others or "fid"}'
      )

  def scores(
    self,
    found: Collected,
    reference: Reference | None,
    images: ImageSet,
    extractor: Extractor,
    stored: Mapping[str, Moments] | None = None,
  ) -> Iterator[tuple[str, float, Protocol]]:
    """Compares the features of images with a reference.

    Args:
      found: features of the images.
      reference: the reference; None leaves out all but the Inception score.
      images: what is known about the images.
      extractor: the network.
      stored: statistics of the file of the images, which replace theirs.

    Yields:
      (figure, value, its protocol). Figures whose features the network does not
      have are left out.

    Raises:
      ConfigError: features of another width than those of the reference.
      DataError: too few images.
    """
    alone = Protocol(
      extractor=extractor.name,
      weights=extractor.weights,
      resize=extractor.resize,
      reference='none',
      images=found.count,
      labels=images.labels,
      order='',
      seed=images.seed,
      rounding=images.rounding,
    )
    if reference is not None:
      moments = found.moments if stored is None else stored
      _check(moments, reference)
      protocol = dataclasses.replace(
        alone,
        reference=reference.name,
        reference_digest=reference.digest,
        split=reference.split,
        reference_images=reference.images,
      )
      method = '' if stored is None else 'statistics of the file'
      for figure, kind in (('fid', 'pool'), ('sfid', 'spatial')):
        own, theirs = moments.get(kind), reference.moments.get(kind)
        if figure in self.figures and own and theirs:
          value = frechet_distance(own, theirs)
          yield figure, value, dataclasses.replace(protocol, method=method)
      if stored is None and 'pool' in found.kept:
        yield from self._bounds(
          found.kept['pool'], reference.moments['pool'], protocol
        )
      yield from self._of_features(found, reference, protocol)
    if 'inception_score' in self.figures and 'logits' in found.kept:
      yield self._inception_score(found.kept['logits'], images, alone)

  def _bounds(self, features, reference, protocol):
    seed = self.seed
    if 'fid_interval' in self.figures:
      interval = frechet_interval(features, reference, seed=seed)
      other = dataclasses.replace(protocol, method='bootstrap, 95 %')
      yield 'fid_low', interval.low, other
      yield 'fid_high', interval.high, other
    if 'fid_infinity' in self.figures:
      value = fid_infinity(features, reference, seed=seed)
      method = 'linear in 1/images'
      yield 'fid_infinity', value, dataclasses.replace(protocol, method=method)

  def _of_features(self, found, reference, protocol):
    real, fake = reference.features, found.kept.get('pool')
    if real is None or fake is None:
      return
    # Of the reference they see only the images whose features are kept.
    protocol = dataclasses.replace(protocol, reference_images=len(real))
    if 'kid' in self.figures:
      size = min(_SUBSET, len(real), len(fake))
      method = f'{_SUBSETS} subsets of {size}'
      value, _ = kernel_distance(
        fake, real, subsets=_SUBSETS, size=size, seed=self.seed
      )
      yield 'kid', value, dataclasses.replace(protocol, method=method)
    wanted = [name for name in _MANIFOLD if name in self.figures]
    if wanted:
      near = f'{self.neighbours} neighbours, {self.distances}'
      values = manifold(
        real, fake, neighbours=self.neighbours, precision=self.distances
      )
      for name in wanted:
        value = getattr(values, name)
        yield name, value, dataclasses.replace(protocol, method=near)

  def _inception_score(self, logits, images, protocol):
    if self.splits == 'splits':
      splits = min(_SPLITS, len(logits))
      value, _ = split_score(logits, splits)
      method, order = f'{splits} splits', 'shuffled'
    else:
      seed = self.seed if self.shuffle else None
      value = inception_score(logits, _BLOCK, seed)
      method = f'blocks of {_BLOCK}'
      order = 'shuffled' if self.shuffle else images.order
    protocol = dataclasses.replace(protocol, method=method, order=order)
    return 'inception_score', value, protocol


def _check(moments, reference):
  for kind, own in moments.items():
    theirs = reference.moments.get(kind)
    if theirs is not None and theirs.mean.shape != own.mean.shape:
      raise ConfigError(
        f'the reference {reference.name} has {len(theirs.mean)} {kind} '
        f'features and the images have {len(own.mean)}: they are of different '
        'networks'
      )
    if own.count < 2:
      raise DataError(
        f'{own.count} image has no distance to a reference; wanted 2 or more'
      )
