"""The Fréchet distance and the moments it is made of."""

import numpy as np
import pytest

from arvision.evals.frechet import Moments, frechet_distance


def gaussian(mean, covariance, count=1000):
  """Moments exactly as given."""
  covariance = np.asarray(covariance, np.float64)
  return Moments(count, np.asarray(mean, np.float64), covariance * (count - 1))


def test_moments_in_pieces_equal_moments_at_once():
  x = np.random.default_rng(0).normal(3.0, 2.0, (101, 7))
  pieces = Moments.of(x[:1]).add(x[1:40]).add(x[40:40]).add(x[40:])
  assert pieces.count == 101
  np.testing.assert_allclose(pieces.mean, x.mean(0), rtol=1e-12)
  np.testing.assert_allclose(pieces.covariance, np.cov(x.T), rtol=1e-10)


def test_moments_survive_a_large_mean():
  x = np.random.default_rng(0).normal(0.0, 1.0, (400, 3))
  far = Moments.of(x[:200] + 1e6).add(x[200:] + 1e6)
  np.testing.assert_allclose(far.covariance, np.cov(x.T), rtol=1e-6)


def test_distance_of_diagonal_gaussians_is_the_closed_form():
  a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25])
  gap = np.array([1.0, -2.0, 0.5])
  wanted = np.sum(gap**2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
  got = frechet_distance(
    gaussian(np.zeros(3), np.diag(a)), gaussian(gap, np.diag(b))
  )
  assert got == pytest.approx(wanted, rel=1e-12)


def test_distance_of_gaussians_that_do_not_commute():
  a = np.array([[2.0, 0.5], [0.5, 1.0]])
  b = np.array([[1.0, -0.3], [-0.3, 3.0]])
  # In two dimensions tr √M = √(tr M + 2 √det M), and M may be Σ_a Σ_b.
  trace = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
  wanted = np.trace(a) + np.trace(b) - 2 * trace
  got = frechet_distance(gaussian([0, 0], a), gaussian([0, 0], b))
  assert got == pytest.approx(wanted, rel=1e-10)


def test_distance_to_itself_is_zero_even_when_singular():
  x = np.random.default_rng(0).normal(size=(20, 50))
  moments = Moments.of(x)
  assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-5)


def test_distance_is_symmetric_and_grows_with_a_shift():
  generator = np.random.default_rng(0)
  a = Moments.of(generator.normal(size=(300, 6)))
  b = Moments.of(generator.normal(size=(300, 6)) * 1.5)
  far = Moments.of(generator.normal(size=(300, 6)) * 1.5 + 2)
  assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
  assert frechet_distance(a, far) > frechet_distance(a, b) + 6 * 2


def test_one_sample_is_refused():
  one = Moments.of(np.zeros((1, 3)))
  with pytest.raises(ValueError, match='at least 2 examples, got 1'):
    frechet_distance(one, one)


def test_features_must_be_a_matrix():
  with pytest.raises(ValueError, match=r'wanted \(n, d\)'):
    Moments.of(np.zeros((2, 3, 4)))
