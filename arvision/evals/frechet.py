"""Fréchet distance between two sets of feature vectors."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Moments:
  """Mean and scatter of feature vectors, added up batch by batch in float64.

  Attributes:
    count: vectors seen.
    mean: (d,) float64.
    scatter: (d, d) float64, the sum of (x - mean)(x - mean)ᵀ.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @classmethod
  def of(cls, features: np.ndarray) -> 'Moments':
    """Moments of (n, d) vectors; n = 0 is allowed."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
      raise ValueError(f'features of shape {features.shape}, wanted (n, d)')
    count, width = features.shape
    mean = features.mean(0) if count else np.zeros(width)
    centred = features - mean
    return cls(count, mean, centred.T @ centred)

  def merge(self, other: 'Moments') -> 'Moments':
    """Moments of both sets together.

    Differs: sums of x xᵀ, as often used, cancel catastrophically where the
    mean is large against the spread; the pairwise update does not.
    """
    count = self.count + other.count
    if not count:
      return self
    gap = other.mean - self.mean
    mean = self.mean + gap * (other.count / count)
    between = np.outer(gap, gap) * (self.count * other.count / count)
    return Moments(count, mean, self.scatter + other.scatter + between)

  def add(self, features: np.ndarray) -> 'Moments':
    """Moments with (n, d) more vectors."""
    return self.merge(Moments.of(features))

  @property
  def covariance(self) -> np.ndarray:
    """(d, d), the unbiased estimate."""
    if self.count < 2:
      raise ValueError(
        f'a covariance needs at least 2 examples, got {self.count}; ask for '
        'more samples'
      )
    return self.scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
  """The 2-Wasserstein distance, squared, of two Gaussians with these moments.

  |μ_a - μ_b|² + tr Σ_a + tr Σ_b - 2 tr (Σ_a^½ Σ_b Σ_a^½)^½. The trace of the
  root of a product is taken from the symmetric form, whose eigenvalues are
  real and not negative even where a covariance is singular.

  Source: Heusel et al., "GANs trained by a two time-scale update rule converge
    to a local Nash equilibrium", 2017, equation 6.
  Differs: no small multiple of the identity is ever added.

  Returns:
    0 for equal moments, in squared units of the features.
  """
  root = _root(a.covariance)
  middle = root @ b.covariance @ root
  spectrum = np.linalg.eigvalsh((middle + middle.T) / 2)
  overlap = np.sqrt(np.clip(spectrum, 0, None)).sum()
  spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap
  gap = a.mean - b.mean
  return float(max(gap @ gap + spread, 0.0))


def _root(matrix):
  values, vectors = np.linalg.eigh(matrix)
  return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
