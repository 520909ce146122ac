"""Guidance and the choice of ids."""

import jax.numpy as jnp
import numpy as np
import pytest

from arvision.layers.level import as_time
from arvision.process import counts, flow, guidance, masking
from arvision.process.logits import LogitsFilter
from arvision.random import Draw


def kept(choice, logits):
  filtered = np.asarray(choice.filter(jnp.asarray(logits, jnp.float32)))
  return sorted(np.flatnonzero(filtered > -1e30))


def test_guidance_is_no_guidance_at_one_and_null_at_zero():
  c, u = jnp.array([2.0, -1.0]), jnp.array([0.5, 3.0])
  np.testing.assert_array_equal(guidance.guide(c, u, 1.0), c)
  np.testing.assert_array_equal(guidance.guide(c, u, 0.0), u)


def test_vars_formula_is_linear_from_one():
  c, u, cfg, scales = 2.0, 0.5, 1.5, 10
  schedule = guidance.Linear(end=1 + cfg)
  for s in range(scales):
    t = cfg * s / (scales - 1)
    official = (1 + t) * c - t * u
    got = guidance.guide(c, u, schedule(s, scales))
    assert got == pytest.approx(official)


def test_power_cosine_starts_at_one_and_rises():
  schedule = guidance.PowerCosine(scale=4.0, power=2.0)
  values = [float(schedule(s, 16)) for s in range(17)]
  assert values[0] == pytest.approx(1.0) and values[16] == pytest.approx(4.0)
  assert values == sorted(values)


@pytest.mark.parametrize(
  ('shape', 'wanted'),
  [
    ('linear', [0.25, 0.5, 0.75, 1]),
    ('square', [1 / 16, 1 / 4, 9 / 16, 1]),
    ('cos', [np.cos(-np.pi / 2 * x) for x in (0.75, 0.5, 0.25, 0)]),
    ('log', [np.log((np.e - 1) * x + 1) for x in (0.25, 0.5, 0.75, 1)]),
    ('square_root', [0, 0.5, 0.5**0.5, 0.75**0.5]),
  ],
)
def test_a_rising_scale(shape, wanted):
  schedule = guidance.Rising(3.0, shape)
  found = [float(schedule(s, 4)) for s in range(4)]
  np.testing.assert_allclose(found, 1 + 2 * np.array(wanted), rtol=1e-6)


def test_a_constant_scale_may_end_early():
  schedule = guidance.Constant(7.5, until=3)
  assert [float(schedule(s, 9)) for s in range(5)] == [7.5, 7.5, 7.5, 1, 1]
  assert guidance.Constant(7.5)(8, 9) == 7.5


@pytest.mark.parametrize(
  'schedule',
  [
    guidance.Constant(1.0),
    guidance.Linear(1.0),
    guidance.PowerCosine(1.0),
    guidance.Rising(1.0),
  ],
)
def test_a_scale_of_one_computes_no_null_half(schedule):
  assert not schedule.active
  assert schedule.scaled_to(3.0).active


def test_top_k_keeps_ties_with_the_kth():
  assert kept(LogitsFilter(top_k=2), [1.0, 3.0, 2.0, 2.0, 0.0]) == [1, 2, 3]


def test_zeros_of_both_signs_are_a_tie():
  assert kept(LogitsFilter(top_k=1), [-0.0, 0.0, -1.0]) == [0, 1]
  assert kept(LogitsFilter(top_k=2), [0.0, 1.0, -0.0, -1.0]) == [0, 1, 2]
  assert kept(LogitsFilter(top_p=0.1), [-0.0, 0.0, -9.0]) == [0, 1]


@pytest.mark.parametrize('count', range(7))
def test_exactly_so_many_are_least_sure(count):
  sure = np.array([[0, 0, 0, 0, 0, 0], [2, 1, 1, 0, 1, np.inf]], np.float32)
  found = masking.least_sure(jnp.asarray(sure), jnp.full(2, count))
  for row, got in zip(sure, np.asarray(found)):
    # The least sure first, and of equals the last.
    order = sorted(range(6), key=lambda i: (row[i], -i))
    assert np.flatnonzero(got).tolist() == sorted(order[:count])


def test_top_p_keeps_the_smallest_set_above_p():
  logits = np.log([0.5, 0.3, 0.15, 0.05])
  assert kept(LogitsFilter(top_p=0.4), logits) == [0]
  assert kept(LogitsFilter(top_p=0.6), logits) == [0, 1]
  assert kept(LogitsFilter(top_p=0.9), logits) == [0, 1, 2]
  assert kept(LogitsFilter(top_p=0.999), logits) == [0, 1, 2, 3]


def test_top_p_always_keeps_the_best():
  assert kept(LogitsFilter(top_p=1e-6), np.log([0.1, 0.2, 0.7])) == [2]


@pytest.mark.parametrize('k', [0, 7, 200])
@pytest.mark.parametrize('p', [0.3, 0.96, 1.0])
def test_filters_keep_what_sorted_logits_say(k, p):
  logits = np.random.default_rng(k).normal(size=(3, 5, 250)) * 4
  logits = logits.astype(np.float32)
  ascending = np.sort(logits, -1)
  if k:
    ascending[..., :-k] = -np.inf
  share = np.exp(ascending.astype(np.float64))
  below = np.cumsum(share, -1) / share.sum(-1, keepdims=True)
  first = np.argmax(below > (1 - p if p < 1 else 0), -1)
  cut = np.take_along_axis(ascending, first[..., None], -1)
  found = np.asarray(LogitsFilter(top_k=k, top_p=p).filter(logits))
  lowest = np.finfo(np.float32).min
  np.testing.assert_array_equal(found, np.where(logits < cut, lowest, logits))


def test_temperature_zero_is_greedy_and_draws_follow_probabilities():
  logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  rows = jnp.repeat(logits, 4000, 0)
  draw = Draw.create(0, jnp.arange(4000))
  assert (LogitsFilter(temperature=0.0)(rows, draw) == 0).all()
  share = np.bincount(LogitsFilter()(rows, draw), minlength=3) / 4000
  np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.03)
  cold = (
    np.bincount(LogitsFilter(temperature=0.5)(rows, draw), minlength=3) / 4000
  )
  wanted = np.array([0.49, 0.04, 0.01]) / 0.54
  np.testing.assert_allclose(cold, wanted, atol=0.03)


@pytest.mark.parametrize(
  'fields', [{'temperature': -1}, {'top_k': -1}, {'top_p': 1.5}]
)
def test_values_outside_of_their_range_are_refused(fields):
  with pytest.raises(ValueError, match=rf'LogitsFilter\.{[*fields][0]}='):
    LogitsFilter(**fields)


def moved(solver, count, velocity, draw):
  """Many numbers, from noise to data."""
  levels = solver.levels(count)
  x = draw.normal('start', (4000, 1))
  for i in range(count):
    v = velocity(x, levels[i])
    x = solver(x, v, levels[i], levels[i + 1], draw.fold(i))
  return np.asarray(x)


@pytest.mark.parametrize('solver', [flow.Euler(), flow.EulerMaruyama()])
def test_solvers_end_in_the_data(solver):
  # Of normal data the velocity is known: E[noise - data | x].
  mean, std = 1.5, 0.5

  def velocity(x, level):
    variance = (1 - level) ** 2 * std**2 + level**2
    away = (x - (1 - level) * mean) / variance
    return level * away - (mean + (1 - level) * std**2 * away)

  x = moved(solver, 200, velocity, Draw.create(0, jnp.arange(2)))
  np.testing.assert_allclose(x.mean(), mean, atol=0.03)
  np.testing.assert_allclose(x.std(), std, atol=0.03)


def test_levels_of_the_stochastic_solver():
  # The times of the official sampler for 40 steps, in thousandths.
  levels = flow.EulerMaruyama().levels(40)
  times = np.asarray(as_time(levels[:-1])).astype(int)
  assert times[:7].tolist() == [1000, 975, 950, 926, 901, 876, 852]
  assert times[-3:].tolist() == [89, 64, 40]
  assert levels[-1] == 0


def test_fewer_steps_for_later_cells():
  falling = counts.Falling(first=50, last=15)
  assert [falling(s, 4) for s in range(4)] == [50, 38, 26, 15]
