"""What the number of images does to a score: extrapolation and intervals.

An interval is a bootstrap interval: the images are drawn again with
replacement, and every draw has a score. Draws repeat images, which moves their
scores, so only their spread is used, around the measured score. It says how far
another set of as many images may score, and nothing of the bias that all sets
of this number have.
"""

import dataclasses

import numpy as np

from arvision.errors import ConfigError
from arvision.evals.frechet import Moments, distance_to, factor_of
from arvision.evals.inception_score import probabilities
from arvision.evals.kernel_distance import kernel

# A distance of fewer images is mostly bias.
_FEW = 500

_BLOCK = 2048


@dataclasses.dataclass(frozen=True)
class Interval:
  """A central interval of draws, around the measured score.

  Attributes:
    low, high: its ends.
  """

  low: float
  high: float


def fid_infinity(
  features: np.ndarray,
  reference: Moments,
  points: int = 15,
  smallest: int | None = None,
  seed: int = 0,
) -> float:
  """Fréchet distance at infinitely many images, by a linear fit in 1/N.

  Source: Chong and Forsyth, "Effectively unbiased FID and Inception score and
    where to find them", 2020: 15 sizes between a tenth of the images and all.
  Differs: the sets are nested (the first N of one permutation), which costs one
    pass over the features. The reference keeps its own bias.

  Args:
    features: (n, d).
    reference: moments of the reference.
    points: number of sizes, at least 2.
    smallest: smallest size, at least 2; None: n // 10. Distances are linear in
      1/N only at sizes well above d.
    seed: of the permutation.

  Returns:
    the distance; it may be negative.
  """
  count = len(features)
  smallest = max(2, count // 10) if smallest is None else smallest
  if points < 2 or not 2 <= smallest < count:
    raise ConfigError(
      f'a fit of {points} distances of {smallest} to {count} images: wanted 2 '
      f'sizes or more, the smallest 2 to {count - 1}'
    )
  features = features[np.random.default_rng(seed).permutation(count)]
  ends = np.unique(np.linspace(smallest, count, points).astype(int))
  factor = factor_of(reference.covariance)
  moments = Moments.of(features[:0])
  found = []
  for end in ends:
    moments = moments.add(features[moments.count : end])
    found.append(distance_to(reference, factor, moments))
  return float(np.polyfit(1 / ends, found, 1)[1])


def equal_number(
  features: np.ndarray,
  reference: Moments,
  size: int,
  most: int = 10,
  seed: int = 0,
) -> float:
  """Mean Fréchet distance of disjoint random sets of `size` images.

  Distances of unequal numbers of images cannot be compared: they fall with the
  number.

  Args:
    features: (n, d), n ≥ size.
    reference: moments of the reference.
    size: images of a set, at least 2.
    most: largest number of sets.
    seed: of the sets.
  """
  count = len(features)
  if not 2 <= size <= count:
    raise ConfigError(
      f'sets of {size} of {count} images: wanted 2 to {count} images'
    )
  order = np.random.default_rng(seed).permutation(count)
  factor = factor_of(reference.covariance)
  sets = order[: count // size * size].reshape(-1, size)[:most]
  return float(
    np.mean(
      [distance_to(reference, factor, Moments.of(features[s])) for s in sets]
    )
  )


def frechet_interval(
  features: np.ndarray,
  reference: Moments,
  size: int | None = None,
  level: float = 0.95,
  draws: int = 100,
  seed: int = 0,
) -> Interval:
  """Bootstrap interval of a Fréchet distance to a fixed reference.

  Of every draw it takes the linear part of the distance in the weights of the
  images: their influence function, from one eigendecomposition. The distance of
  a draw itself varies too much if d is not far below the number of images: its
  covariance has the rank of the different images in it.

  Args:
    features: (n, d), n ≥ 2.
    reference: moments of the reference.
    size: images of a draw, 2 to n, around the distance of `equal_number`; None:
      n.
    level: probability of the interval.
    draws: number of draws.
    seed: of the draws.
  """
  size = len(features) if size is None else size
  measured = equal_number(features, reference, size)
  weights = _draws(len(features), draws, seed, size)
  values = weights @ _influence(features, reference) / size
  return _around(measured, values, level)


def _influence(features, reference):
  """(n,) derivative of the distance in the weight of every image, mean 0.

  That of the covariance is I - T, with T the optimal transport map between the
  Gaussians: T = L M^-½ Lᵀ, M = Lᵀ Σ L.
  """
  moments, factor = Moments.of(features), factor_of(reference.covariance)
  values, vectors = np.linalg.eigh(factor.T @ moments.covariance @ factor)
  values = np.maximum(values, 1e-12 * max(values[-1], 1e-300))
  half = factor @ (vectors * values**-0.25)
  gap = 2 * (moments.mean - reference.mean)
  parts = []
  for start in range(0, len(features), _BLOCK):
    centred = features[start : start + _BLOCK] - moments.mean
    transported = ((centred @ half) ** 2).sum(1)
    parts.append(centred @ gap + (centred**2).sum(1) - transported)
  influence = np.concatenate(parts)
  return influence - influence.mean()


def kernel_interval(
  a: np.ndarray,
  b: np.ndarray,
  level: float = 0.95,
  draws: int = 100,
  seed: int = 0,
) -> Interval:
  """Bootstrap interval of `unbiased_kernel_distance`, drawing both sets.

  A pair of copies of one image does not count, so that a draw is unbiased as
  well. It needs the time of that estimate.

  Args:
    a: (n, d), n ≥ 2.
    b: (m, d), m ≥ 2.
    level, draws, seed: see `frechet_interval`.
  """
  a, b = (np.asarray(x, np.float64) for x in (a, b))
  weight_a = np.vstack([np.ones(len(a)), _draws(len(a), draws, seed)])
  weight_b = np.vstack([np.ones(len(b)), _draws(len(b), draws, seed + 1)])
  values = _own(a, weight_a) + _own(b, weight_b)
  across = _bilinear(a, weight_a, b, weight_b)
  values -= 2 * across / (len(a) * len(b))
  return _around(values[0], values[1:], level)


def _bilinear(a, weight_a, b, weight_b):
  """(draws,) sums of w_i k(a_i, b_j) w_j."""
  total = np.zeros(len(weight_a))
  for i in range(0, len(a), _BLOCK):
    for j in range(0, len(b), _BLOCK):
      rows, columns = slice(i, i + _BLOCK), slice(j, j + _BLOCK)
      left = weight_a[:, rows] @ kernel(a[rows], b[columns])
      total += np.einsum('bj,bj->b', left, weight_b[:, columns])
  return total


def _own(x, weight):
  """(draws,) mean kernel of pairs of different images."""
  diagonal = ((x**2).sum(1) / x.shape[1] + 1) ** 3
  squares = weight**2
  total = _bilinear(x, weight, x, weight) - squares @ diagonal
  return total / (weight.sum(1) ** 2 - squares.sum(1))


def score_interval(
  logits: np.ndarray,
  block: int = 5000,
  level: float = 0.95,
  draws: int = 100,
  seed: int = 0,
) -> Interval:
  """Bootstrap interval of an `inception_score`, drawing inside its blocks.

  Args:
    logits: (n, k), in the order of the score.
    block: see `inception_score`.
    level, draws, seed: see `frechet_interval`.
  """
  scores = []
  for i, start in enumerate(range(0, len(logits), block)):
    p, log_p = probabilities(logits[start : start + block])
    weights = _draws(len(p), draws, seed + i)
    weights = np.vstack([np.ones(len(p)), weights]) / len(p)
    mean = weights @ p
    log_mean = np.log(mean, out=np.zeros_like(mean), where=mean > 0)
    negative_entropy = np.einsum('nk,nk->n', p, log_p)
    spread = np.einsum('bk,bk->b', mean, log_mean)
    scores.append(np.exp(weights @ negative_entropy - spread))
  values = np.mean(scores, 0)
  return _around(values[0], values[1:], level)


def _draws(count, draws, seed, size=None):
  """(draws, count) float64: how often every image is drawn."""
  generator = np.random.default_rng(seed)
  share = np.full(count, 1 / count)
  return generator.multinomial(size or count, share, draws).astype(np.float64)


def _around(measured, values, level):
  """The quantiles of the values, moved so that their mean is the score."""
  tail = 50 * (1 - level)
  low, high = np.percentile(values - values.mean(), [tail, 100 - tail])
  return Interval(float(measured + low), float(measured + high))


def few(count: int, what: str) -> str:
  """A warning about few images, '' for enough."""
  if count >= _FEW:
    return ''
  return (
    f'warning: {count} {what} are few: distances of less than {_FEW} images '
    'are biased, and only compare with those of as many'
  )
