"""The time between checkpoints that a run chooses itself."""

import numpy as np
import pytest

from arvision.training.events import Events, read
from arvision.training.interval import Interval
from tests.parts import training_toys as toys


class Run:
  """Steps of some seconds each; a save takes half a second."""

  def __init__(self, costs=(0.5,), share=lambda x: x):
    self.now = 0.0
    self.interval = Interval(100.0, costs, lambda: self.now, share)
    self.interval.start(0)

  def saves(self, steps, seconds):
    found = []
    for step in steps:
      self.now += seconds
      if self.interval.due(step):
        self.now += 0.5
        found.append(step)
        self.interval.saved(step, 0.5)
    return found


def test_saves_follow_young_s_formula():
  # sqrt(2 * 0.5 * 100) = 10 seconds.
  run = Run()
  assert run.saves(range(1, 35), 1.0) == [10, 20, 30]
  # Steps that become slow, and fast again.
  assert run.saves(range(35, 40), 6.0) == [36, 38]
  found = run.saves(range(40, 400), 0.1)
  assert np.diff(found) == pytest.approx(100, abs=5)
  # Without a measured save: sqrt(2 * 1 * 100) = 14 seconds.
  assert Run(costs=()).saves(range(1, 20), 1.0) == [14]


def test_all_processes_save_where_the_first_one_does():
  told = []
  first = Run(share=lambda x: told.append(x) or x)
  found = first.saves(range(1, 60), 0.7)
  other = Run(costs=(8.0, 9.0), share=lambda x: told.pop(0))
  assert other.saves(range(1, 60), 5.0) == found
  # They communicate at few steps.
  assert not told and len(found) == 4


def test_a_run_that_saves_when_it_likes_computes_the_same(tmp_path, capsys):
  change = {'checkpoint__every': {'steps': 100}}
  toys.run(toys.config(6, **change), tmp_path / 'few')
  change['checkpoint__hours_between_failures'] = 1e-9
  toys.run(toys.config(6, **change), tmp_path / 'many', stop_at=3)
  toys.run(toys.config(6, **change), tmp_path / 'many')
  few, many = (toys.arrays(tmp_path / name) for name in ('few', 'many'))
  for name in few:
    np.testing.assert_array_equal(many[name], few[name], err_msg=name)
  saves = [
    e for e in read(tmp_path / 'many/events.jsonl') if e['event'] == 'save'
  ]
  assert [e['step'] for e in saves] == [*range(1, 7)]
  assert all(e['cost'] > 0 and 0 < e['interval'] < 1 for e in saves)
  assert Events(tmp_path / 'many').costs() == [e['cost'] for e in saves]
  assert 'a checkpoint at least every' in capsys.readouterr().out
