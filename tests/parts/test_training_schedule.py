"""Durations and schedules."""

import jax
import numpy as np
import pytest

from arvision.errors import ConfigError
from arvision.training import schedule
from arvision.training.optim import Optimizer
from arvision.training.schedule import Clock


def steps(duration, total=None):
  return schedule.steps(duration, batch_size=32, examples=1000, total=total)


def test_every_unit_means_the_same_length():
  assert steps({'steps': 125}) == 125
  assert steps({'epochs': 4}) == 125
  assert steps({'examples': 4000}) == 125
  assert steps({'fraction': 0.25}, total=500) == 125


def test_a_short_duration_is_a_step_and_zero_is_none():
  assert steps({'epochs': 0.001}) == 1
  assert steps({'fraction': 0.0}, total=10) == 0


@pytest.mark.parametrize(
  ('duration', 'said'),
  [
    ({}, 'exactly one of steps, epochs'),
    ({'steps': 1, 'epochs': 1}, 'exactly one of steps, epochs'),
    ({'step': 1}, "Did you mean 'steps'"),
    ({'steps': -1}, 'wanted 0 or more'),
    ({'fraction': 0.5}, 'a fraction of itself'),
  ],
)
def test_a_wrong_duration_is_refused(duration, said):
  with pytest.raises(ConfigError, match=said):
    steps(duration)


def test_lin0_is_the_schedule_of_the_official_run():
  # Recorded from FoundationVision/VAR: peak 0.002, warm-up of 3 steps from
  # 0.005 of it, 12 steps in all, down to 0.01 of it.
  recorded = [
    1e-05,
    0.0006733333333333334,
    0.0013366666666666668,
    0.002,
    0.001843684210526316,
  ]
  made = schedule.WarmupLin0(warmup={'steps': 3}, final=0.01)
  rate = made.make(0.002, Clock(12, 1, 100))
  np.testing.assert_allclose([rate(i) for i in range(5)], recorded, rtol=1.2e-7)
  compiled = [jax.jit(rate)(i) for i in range(5)]
  np.testing.assert_allclose(compiled, recorded, rtol=2.4e-7)
  assert float(rate(11)) == pytest.approx(2e-5, rel=1e-6)


def test_hold_and_cosine_is_the_schedule_of_the_official_run():
  # Recorded from OliverRensu/xAR, here with a step for an epoch: peak 0.002,
  # 100 epochs of warm-up, constant until 600, down to 1e-5 at 800.
  made = schedule.WarmupHoldCosine(
    warmup={'steps': 100}, until={'steps': 600}, final=0.005
  )
  rate = made.make(0.002, Clock(801, 1, 1))
  found = [float(rate(epoch)) for epoch in (40, 90, 300, 640, 720, 800)]
  recorded = [0.0008, 0.0018, 0.002, 0.00180997, 0.00069753, 1e-5]
  np.testing.assert_allclose(found, recorded, rtol=1e-5)


def test_a_stable_rate_halves_six_times_at_the_end():
  # As thunlp/ACDiT states it: 0.5^(6 share) over the last 15 % of the run.
  rate = schedule.WarmupStableDecay().make(3e-4, Clock(1001, 1, 1))
  found = [float(rate(step)) for step in (0, 849, 925, 1000)]
  np.testing.assert_allclose(found, [3e-4, 3e-4, 3.75e-5, 4.69e-6], rtol=0.02)


def test_a_hold_that_ends_before_the_warmup_is_refused():
  made = schedule.WarmupHoldCosine(warmup={'steps': 5}, until={'steps': 3})
  with pytest.raises(ConfigError, match='config.optim.schedule.until: 3 steps'):
    made.make(1.0, Clock(10, 1, 1))


@pytest.mark.parametrize('kind', [schedule.WarmupCosine, schedule.WarmupLin0])
def test_a_schedule_starts_peaks_and_ends_where_it_says(kind):
  made = kind(warmup={'fraction': 0.2}, start=0.1, final=0.25)
  rate = made.make(2.0, Clock(50, 1, 1))
  values = np.array([rate(i) for i in range(50)])
  assert values[0] == pytest.approx(0.2)
  assert values[10] == pytest.approx(2.0) == values.max()
  assert values[49] == pytest.approx(0.5)
  assert (np.diff(values[:11]) > 0).all() and (np.diff(values[10:]) <= 0).all()


def test_cosine_is_half_way_in_the_middle():
  rate = schedule.WarmupCosine(final=0.5).make(1.0, Clock(101, 1, 1))
  assert float(rate(50)) == pytest.approx(0.75)


@pytest.mark.parametrize(
  ('total', 'advice', 'shorter'),
  [
    (10, 'warmup.fraction=0.1,', {'fraction': 0.1}),
    (2, 'warmup.fraction=0.1,', {'fraction': 0.1}),
    (1, 'warmup=None,', None),
  ],
)
def test_a_warmup_longer_than_the_run_is_refused(total, advice, shorter):
  made = schedule.Constant(warmup={'epochs': 2})
  with pytest.raises(ConfigError) as error:
    made.make(1.0, Clock(total, 1, 10))
  said = str(error.value)
  assert "schedule.warmup={'epochs': 2} is 20 steps" in said
  assert f'config.train.duration is {total} steps' in said
  assert advice in said and 'train.duration.steps=200' in said
  # What is advised is taken.
  schedule.Constant(warmup=shorter).make(1.0, Clock(total, 1, 10))
  made.make(1.0, Clock(200, 1, 10))


def test_weight_decay_goes_along_a_cosine():
  optimizer = Optimizer(0.1, weight_decay=0.05, weight_decay_end=0.08)
  decay = optimizer.rates(Clock(11, 1, 1))['weight_decay']
  found = [float(decay(i)) for i in (0, 5, 10)]
  assert found == pytest.approx([0.05, 0.065, 0.08])
