"""Fréchet distance between two sets of feature vectors."""

import dataclasses

import numpy as np

# Vectors that are centred at once: 64 MB of float64 at d = 2048.
_BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class Moments:
  """Mean and scatter matrix of feature vectors, accumulated in float64.

  Attributes:
    count: number of vectors.
    mean: (d,) float64.
    scatter: (d, d) float64, the sum of (x - mean)(x - mean)ᵀ.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @classmethod
  def of(cls, features: np.ndarray) -> 'Moments':
    """Moments of (n, d) vectors, n ≥ 0."""
    features = np.asarray(features)
    if features.ndim != 2:
      raise ValueError(f'features of shape {features.shape}, wanted (n, d)')
    count, width = features.shape
    mean = features.mean(0, dtype=np.float64) if count else np.zeros(width)
    scatter = np.zeros((width, width))
    for start in range(0, count, _BLOCK):
      centred = features[start : start + _BLOCK] - mean
      scatter += centred.T @ centred
    return cls(count, mean, scatter)

  def merge(self, other: 'Moments') -> 'Moments':
    """Moments of the union.

    Uses the pairwise update. Sums of x xᵀ would cancel catastrophically if the
    mean is large compared with the deviation.
    """
    count = self.count + other.count
    if not count:
      return self
    gap = other.mean - self.mean
    mean = self.mean + gap * (other.count / count)
    between = np.outer(gap, gap) * (self.count * other.count / count)
    return Moments(count, mean, self.scatter + other.scatter + between)

  def add(self, features: np.ndarray) -> 'Moments':
    """Moments with (n, d) further vectors."""
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
  """Squared 2-Wasserstein distance of two Gaussians with these moments.

      |μ_a - μ_b|² + tr Σ_a + tr Σ_b - 2 tr (Lᵀ Σ_b L)^½     with Σ_a = L Lᵀ

  The symmetric form has real and non-negative eigenvalues even if a covariance
  is singular.

  Source: Heusel et al., "GANs trained by a two time-scale update rule converge
    to a local Nash equilibrium", 2017, equation 6.
  Differs: no multiple of the identity is ever added to a covariance.

  Returns:
    the distance in squared units of the features, 0 for equal moments.
  """
  return distance_to(a, factor_of(a.covariance), b)


def distance_to(reference: Moments, factor: np.ndarray, a: Moments) -> float:
  """`frechet_distance`, for several distances to one reference.

  Args:
    reference: moments.
    factor: `factor_of` its covariance.
    a: other moments.
  """
  covariance = a.covariance
  spectrum = np.linalg.eigvalsh(factor.T @ covariance @ factor)
  overlap = np.sqrt(np.clip(spectrum, 0, None)).sum()
  spread = np.trace(reference.covariance) + np.trace(covariance) - 2 * overlap
  gap = a.mean - reference.mean
  return float(max(gap @ gap + spread, 0.0))


def factor_of(covariance: np.ndarray) -> np.ndarray:
  """L with L Lᵀ = Σ: the Cholesky factor, or the root of a singular Σ."""
  try:
    return np.linalg.cholesky(covariance)
  except np.linalg.LinAlgError:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
