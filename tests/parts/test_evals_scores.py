"""Inception score, kernel distance, balls of features, and their bounds."""

import importlib

import numpy as np
import pytest

from arvision.errors import ConfigError
from arvision.evals import bounds
from arvision.evals.frechet import Moments, frechet_distance
from arvision.evals.inception_score import (
  inception_score,
  information,
  split_score,
)
from arvision.evals.kernel_distance import (
  kernel_distance,
  unbiased_kernel_distance,
)
from arvision.evals.manifold import distances, manifold, nearest, radii
from tests.parts.evals_toys import define_operators


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Inception score.


def test_score_of_certain_and_equal_classes_is_their_number():
  sure = np.where(np.eye(7) > 0, 0.0, -np.inf).repeat(3, 0)
  assert inception_score(sure) == pytest.approx(7, rel=1e-12)
  assert inception_score(np.zeros((9, 7))) == pytest.approx(1, rel=1e-12)
  np.testing.assert_allclose(information(sure), np.log(7), rtol=1e-12)


def score_by_definition(logits, block):
  scores = []
  for i in range(0, len(logits), block):
    p = np.exp(logits[i : i + block].astype(np.float64))
    p /= p.sum(1, keepdims=True)
    kl = (p * (np.log(p) - np.log(p.mean(0)))).sum(1)
    scores.append(np.exp(kl.mean()))
  return np.mean(scores)


@pytest.mark.parametrize('block', [5, 7, 30, 31])
def test_score_equals_the_definition_with_a_short_last_block(block):
  logits = normal(30, 6)
  wanted = score_by_definition(logits, block)
  assert inception_score(logits, block) == pytest.approx(wanted, rel=1e-12)
  shifted = logits + 500 * normal(30, 1, seed=1)
  assert inception_score(shifted, block) == pytest.approx(wanted, rel=1e-4)


def by_class(classes, each, seed=0):
  """Logits of images that are sorted by class, and their features."""
  label = np.arange(classes).repeat(each)
  logits = normal(classes * each, classes, seed=seed)
  logits[np.arange(len(label)), label] += 5
  return logits


def test_the_order_of_the_images_changes_the_score_and_no_distance():
  logits = by_class(50, 10)
  ordered = inception_score(logits, block=50)
  shuffled = inception_score(logits, block=50, order=0)
  assert ordered < 6 and shuffled > 2 * ordered
  whole = inception_score(logits, block=500)
  assert inception_score(logits, 500, order=0) == pytest.approx(whole)
  other = Moments.of(normal(80, 50, seed=1))
  mixed = logits[np.random.default_rng(0).permutation(500)]
  distance = frechet_distance(Moments.of(logits), other)
  assert frechet_distance(Moments.of(mixed), other) == pytest.approx(distance)


def test_splits_have_the_bounds_and_the_order_of_torch_fidelity():
  logits = normal(23, 5)
  mixed = logits[np.random.RandomState(2020).permutation(23)]
  bounds_ = [0, 5, 11, 17, 23]
  scores = [
    score_by_definition(mixed[a:b], 99) for a, b in zip(bounds_, bounds_[1:])
  ]
  mean, std = split_score(logits, splits=4)
  assert mean == pytest.approx(np.mean(scores), rel=1e-12)
  assert std == pytest.approx(np.std(scores), rel=1e-9)
  assert split_score(mixed, 4, seed=None) == pytest.approx((mean, std))


def test_scores_that_cannot_be_are_refused():
  with pytest.raises(ConfigError, match='wanted 1 to 3'):
    split_score(normal(3, 2), splits=4)
  with pytest.raises(ConfigError, match='wanted 1 or more'):
    inception_score(normal(3, 2), block=0)
  with pytest.raises(ValueError, match=r'wanted \(n, k\)'):
    inception_score(normal(0, 2))


# Kernel distance.


def kernel_by_definition(a, b):
  k = lambda x, y: (np.dot(x.astype(float), y) / len(x) + 1) ** 3
  own = lambda s: np.mean(
    [k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]
  )
  across = np.mean([k(x, y) for x in a for y in b])
  return own(a) + own(b) - 2 * across


@pytest.mark.parametrize('block', [1, 4, 100])
def test_kernel_distance_equals_a_double_loop(block):
  a, b = np.float64(normal(9, 3)), np.float64(normal(7, 3, seed=1)) + 0.5
  wanted = kernel_by_definition(a, b)
  got = unbiased_kernel_distance(a, b, block)
  assert got == pytest.approx(wanted, rel=1e-10)
  generator = np.random.RandomState(5)
  pick = lambda x: x[generator.choice(len(x), 4, replace=False)]
  drawn = [kernel_by_definition(pick(a), pick(b)) for _ in range(3)]
  mean, std = kernel_distance(a, b, subsets=3, size=4, seed=5)
  assert mean == pytest.approx(np.mean(drawn), rel=1e-10)
  assert std == pytest.approx(np.std(drawn), rel=1e-8)


def test_kernel_distance_has_no_bias():
  found = [
    unbiased_kernel_distance(normal(20, 4, seed=i), normal(15, 4, seed=i + 900))
    for i in range(300)
  ]
  error = np.std(found) / np.sqrt(len(found))
  assert abs(np.mean(found)) < 4 * error and np.min(found) < 0


def test_subsets_that_are_too_large_are_refused():
  with pytest.raises(ConfigError, match='of sets of 9 and 5: .* 2 to 5 images'):
    kernel_distance(normal(9, 2), normal(5, 2), size=6)
  with pytest.raises(ConfigError, match='wanted 2 or more of each'):
    unbiased_kernel_distance(normal(9, 2), normal(1, 2))


# Balls.


def slow_distances(a, b):
  return ((a[:, None].astype(float) - b[None]) ** 2).sum(-1)


def slow_radii(x, k):
  return np.sort(slow_distances(x, x), 1)[:, k]


def slow_manifold(real, fake, k):
  squared = slow_distances(fake, real)
  inside = squared <= slow_radii(real, k)
  return {
    'precision': inside.any(1).mean(),
    'recall': (squared <= slow_radii(fake, k)[:, None]).any(0).mean(),
    'density': inside.sum() / k / len(fake),
    'coverage': inside.any(0).mean(),
  }


@pytest.mark.parametrize('block', [5, 32, 64, 1000])
@pytest.mark.parametrize('k', [1, 3, 5])
def test_manifold_equals_brute_force(k, block):
  real, fake = normal(64, 6), normal(45, 6, seed=1) * 0.8 + 0.3
  wanted = slow_manifold(real, fake, k)
  assert vars(manifold(real, fake, k, block=block)) == pytest.approx(wanted)
  np.testing.assert_allclose(
    radii(real, k, block=block), slow_radii(real, k), rtol=1e-4
  )


def test_nearest_equals_brute_force():
  real, fake = normal(40, 5), normal(30, 5, seed=1)
  own, squared = slow_radii(real, 2), slow_distances(fake, real)
  found = nearest(real, radii(real, 2), fake, block=7)
  np.testing.assert_array_equal(found.index, squared.argmin(1))
  np.testing.assert_array_equal(found.inside, (squared <= own).any(1))
  np.testing.assert_allclose(found.squared, squared.min(1), rtol=1e-4)
  realism = (own / (squared + 1e-5)).max(1)
  np.testing.assert_allclose(found.realism, realism, rtol=1e-3)


def test_equal_sets_overlap_and_a_cluster_is_precise_but_incomplete():
  x = normal(100, 8)
  same = manifold(x, x)
  assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
  tight = manifold(3 * x, 0.1 * normal(100, 8, seed=1))
  assert tight.precision > 0.8 and tight.recall < 0.3
  far = manifold(x, x + 100)
  assert set(vars(far).values()) == {0.0}


def test_balls_turn_with_the_features():
  real, fake = normal(50, 6), normal(40, 6, seed=1) + 0.2
  turn = np.linalg.qr(normal(6, 6, seed=2))[0].astype(np.float32)
  assert manifold(real, fake) == manifold(real @ turn, fake @ turn)
  before = frechet_distance(Moments.of(real), Moments.of(fake))
  after = frechet_distance(Moments.of(real @ turn), Moments.of(fake @ turn))
  assert after == pytest.approx(before, rel=1e-5)


def test_float16_is_near_and_falls_back_where_it_overflows():
  # Norms as of Inception features, whose rounding is the released one.
  a, b = (np.abs(normal(30, 512, seed=s)) * 0.5 for s in (0, 1))
  exact, rounded = distances(a, b), distances(a, b, 'float16')
  assert 0 < np.abs(exact - rounded).max() < 0.3
  assert np.array_equal(rounded, rounded.astype(np.float16))
  large = 200 * a
  np.testing.assert_array_equal(
    distances(large, large, 'float16'), distances(large, large)
  )
  assert manifold(a, b, precision='float16').recall == pytest.approx(
    manifold(a, b).recall, abs=0.1
  )


def test_too_few_images_for_the_neighbours_are_refused():
  with pytest.raises(ConfigError, match='3 neighbours among 3 images'):
    manifold(normal(9, 2), normal(3, 2))


# Numbers of images.


def test_the_distance_at_infinity_has_less_bias():
  reference = Moments(10**6, np.zeros(16), np.eye(16) * (10**6 - 1))
  sets = [normal(1000, 16, seed=i) for i in range(20)]
  measured = [frechet_distance(Moments.of(s), reference) for s in sets]
  found = [bounds.fid_infinity(s, reference) for s in sets]
  assert abs(np.mean(found)) < 0.2 * np.mean(measured)
  with pytest.raises(ConfigError, match='the smallest 2 to 999'):
    bounds.fid_infinity(sets[0], reference, smallest=1000)


def test_sets_of_one_number_have_equal_distances():
  reference = Moments.of(normal(4000, 8))
  few, many = normal(100, 8, seed=1), normal(1000, 8, seed=2)
  unequal = frechet_distance(Moments.of(many), reference)
  own = bounds.equal_number(few, reference, 100)
  assert own == pytest.approx(frechet_distance(Moments.of(few), reference))
  assert bounds.equal_number(many, reference, 100) == pytest.approx(
    own, rel=0.3
  )
  assert unequal < own / 3
  with pytest.raises(ConfigError, match='sets of 101 of 100 images'):
    bounds.equal_number(few, reference, 101)


def test_influence_is_the_derivative_in_the_weight_of_an_image():
  features = np.float64(normal(200, 3)) * 1.2 + 0.3
  reference = Moments.of(normal(500, 3, seed=1))

  def weighted(i, weight):
    weights = np.ones(200)
    weights[i] += weight
    mean = np.average(features, 0, weights)
    covariance = np.cov(features.T, aweights=weights, ddof=0)
    return frechet_distance(Moments(2, mean, covariance), reference)

  found = bounds._influence(features, reference)
  for i in range(5):
    slope = (weighted(i, 1e-3) - weighted(i, -1e-3)) / 2e-3
    assert found[i] / 200 == pytest.approx(slope, rel=0.02, abs=1e-4)


@pytest.mark.parametrize('width', [6, 150])
def test_an_interval_is_as_wide_as_the_scores_of_other_sets(width):
  reference = Moments.of(normal(4000, width, seed=1))
  make = lambda seed: normal(200, width, seed=seed) * 1.3
  found = bounds.frechet_interval(make(7), reference)
  scores = [
    frechet_distance(Moments.of(make(i)), reference) for i in range(10, 50)
  ]
  size = np.percentile(scores, 97.5) - np.percentile(scores, 2.5)
  assert found.high - found.low == pytest.approx(size, rel=0.5)


def test_kernel_draws_do_not_count_copies():
  a, b = normal(12, 3), normal(9, 3, seed=1) + 0.2
  found = bounds.kernel_interval(a, b, draws=50)
  measured = unbiased_kernel_distance(a, b)
  assert found.low < measured < found.high
  # A draw that repeats everything once is the estimate itself.
  twice = np.full((1, 12), 2.0)
  own = bounds._own(a.astype(np.float64), np.vstack([np.ones(12), twice]))
  assert own[0] == pytest.approx(own[1])


def test_score_interval_is_around_the_score():
  logits = by_class(5, 20)
  score = inception_score(logits, block=60, order=3)
  mixed = logits[np.random.RandomState(3).permutation(100)]
  found = bounds.score_interval(mixed, block=60)
  assert found.low < score < found.high
  assert found.high - found.low < score


# The packages of PyPI.


def mixed(count, seed, shift=0.0):
  """Features as of a network: correlated, not negative."""
  mixing = normal(64, 64, seed=99) / 8
  return np.maximum(normal(count, 64, seed=seed) @ mixing + 0.3 + shift, 0)


@pytest.mark.slow
def test_scores_equal_torch_fidelity():
  torch = pytest.importorskip('torch')
  define_operators()
  package = pytest.importorskip('torch_fidelity')
  isc, kid, prc = (
    importlib.import_module(f'{package.__name__}.metric_{name}')
    for name in ('isc', 'kid', 'prc')
  )
  a, b = mixed(2000, 0), mixed(1500, 1, 0.1)
  give = torch.tensor
  close = lambda x: pytest.approx(x, rel=1e-4)
  logits = 3 * normal(2003, 1008)
  theirs = isc.isc_features_to_metric(give(logits))
  assert split_score(logits) == close(tuple(theirs.values()))
  theirs = kid.kid_features_to_metric(give(a), give(b), verbose=False)
  assert kernel_distance(a, b) == close(tuple(theirs.values()))
  theirs = prc.prc_features_to_metric(give(a), give(b), verbose=False)
  found = manifold(real=b, fake=a)
  assert (found.precision, found.recall) == close(tuple(theirs.values())[:2])


@pytest.mark.slow
def test_distances_equal_pytorch_fid_and_torch_fidelity():
  torch = pytest.importorskip('torch')
  define_operators()
  pytorch_fid = pytest.importorskip('pytorch_fid.fid_score')
  fid = pytest.importorskip('torch_fidelity.metric_fid')
  sets = mixed(2000, 0), mixed(1500, 1, 0.1)
  found = frechet_distance(*map(Moments.of, sets))
  stats = [fid.fid_features_to_statistics(torch.tensor(x)) for x in sets]
  theirs = fid.fid_statistics_to_metric(*stats, verbose=False)
  assert list(theirs.values()) == pytest.approx([found], rel=1e-4)
  wanted = pytorch_fid.calculate_frechet_distance(
    *(s[k] for s in stats for k in ('mu', 'sigma'))
  )
  assert found == pytest.approx(wanted, rel=1e-4)
