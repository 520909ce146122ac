"""Loss spikes: found where planted, not in noise, marked in the report."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from arvision.runs import report
from arvision.runs.folder import Folder
from arvision.training import events
from arvision.training.spikes import Spikes, last_batch
from tests.parts import training_toys as toys


def course(steps):
  """A loss that falls, and a gradient norm of a warm-up with heavy tails."""
  rng = np.random.default_rng(0)
  at = np.arange(steps)
  loss = 2 + 5 * np.exp(-at / 100) + rng.normal(0, 0.1, steps)
  norm = np.minimum(1, at / 50) * rng.lognormal(0, 0.3, steps)
  return [
    {'loss': a, 'gradient_norm/net': b, 'accuracy': c}
    for a, b, c in zip(loss, norm, rng.lognormal(0, 9, steps))
  ]


def test_a_planted_spike_is_found_once_and_noise_is_not():
  values = course(2000)
  for step in (1200, 1201, 1202):
    values[step]['loss'] = 9.0
  values[1500]['gradient_norm/net'] = 40.0
  found, other = Spikes(ConfigDict()), Spikes(ConfigDict())
  seen = []
  for step, now in enumerate(values):
    seen += [(step, spike.metric) for spike in found(now)]
    # As if the run were resumed after every step.
    other.set_state(json.loads(json.dumps(found.get_state())))
    found, other = other, found
  assert seen == [(1200, 'loss'), (1500, 'gradient_norm/net')]
  off = Spikes(ConfigDict({'spikes': {'factor': 0.0}}))
  assert not any(off(now) for now in values)


def test_where_the_last_batch_is():
  state = {'next_batch': 7, 'batch_size': 4, 'changes': [(5, 40)]}
  assert last_batch(state) == {'batch': 6, 'examples': [44, 47]}
  assert last_batch({}) == {}


class Spiky(toys.Task):
  """The toy task, with a loss that is fifty times as large in one step."""

  def objective(self, params, state, frozen, rows, draw):
    found = super().objective(params, state, frozen, rows, draw)
    factor = 1.0 + 49.0 * (state.step == 14)
    term = found.terms['each']
    return found.replace(terms={'each': term.replace(loss=factor * term.loss)})


def test_a_run_notes_its_spike_and_the_report_marks_it(tmp_path, monkeypatch):
  monkeypatch.setattr(toys, 'Task', Spiky)
  config = toys.config(18, spikes={'factor': 10.0, 'window': 12})
  for stop in (12, None):
    toys.run(config, tmp_path, stop_at=stop)
  found = [
    e
    for e in events.read(tmp_path / 'events.jsonl')
    if e['event'] == 'spike' and e['metric'] == 'loss'
  ]
  assert [e['step'] for e in found] == [15]
  assert found[0]['value'] > 10 * found[0]['usual']
  assert found[0]['batch'] == 14 and found[0]['examples'] == [224, 239]
  assert len(found[0]['index']) == 16
  folder = Folder(tmp_path)
  assert {(s['step'], s['metric']) for s in folder.spikes} >= {(15, 'loss')}
  page = report.render([folder], report.summarise([folder]))
  assert 'Spikes of the' in page and '<td class="figure">15</td>' in page
  assert 'dashed lines are spikes' in page


@pytest.mark.parametrize(
  'line',
  [
    {'metric': 3, 'value': 1.0, 'usual': 1.0},
    {'metric': 'loss', 'value': 'x', 'usual': 1.0},
    {'metric': 'loss', 'value': 1.0},
  ],
)
def test_a_damaged_spike_is_left_out(tmp_path, line):
  (tmp_path / 'config.json').write_text('{"data": {}}')
  whole = {'event': 'spike', 'step': 3, 'time': 1.0}
  text = json.dumps({**whole, **line}) + '\n'
  (tmp_path / 'events.jsonl').write_text(text)
  assert Folder(tmp_path).spikes == []
