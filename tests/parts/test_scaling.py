"""Scaling laws: the fit, its intervals, and the command over finished runs."""

import json
import math
import re

import numpy as np
import pytest

from arvision.commands import scaling as command
from arvision.commands.main import main
from arvision.errors import ConfigError
from arvision.runs import scaling
from arvision.training import workdir
from tests.configs import ALL

CONFIG = 'ablations/sizes'


def law(n, alpha=-0.2, beta=3.0, noise=0.0, tokens=1000):
  """Models of 4^1 to 4^n parameters on L = (β N)^α, with noise of log L."""
  rng = np.random.default_rng(1)
  return [
    scaling.Point(
      f'm{i}',
      4**i,
      tokens,
      math.exp(alpha * math.log(beta * 4**i) + noise * rng.normal()),
    )
    for i in range(1, n + 1)
  ]


def test_an_exact_law_is_found():
  found = scaling.fit(law(6), 'parameters')
  assert found.alpha == pytest.approx(-0.2)
  assert found.beta == pytest.approx(3.0)
  assert found.correlation == pytest.approx(-1.0)
  assert found(4**7) == pytest.approx((3.0 * 4**7) ** -0.2)
  low, high = found.alpha_range
  assert low == pytest.approx(high) == pytest.approx(-0.2)


def test_the_fit_is_least_squares_and_its_interval_holds_the_law():
  points = law(6, noise=0.01)
  found = scaling.fit(points, 'parameters')
  x = np.log([p.parameters for p in points])
  y = np.log([p.loss for p in points])
  slope = ((x - x.mean()) @ (y - y.mean())) / ((x - x.mean()) @ (x - x.mean()))
  assert found.alpha == pytest.approx(slope)
  assert found.correlation == pytest.approx(np.corrcoef(x, y)[0, 1])
  assert found.alpha_range[0] < -0.2 < found.alpha_range[1]
  wanted = scaling.Point('m7', 4**7, 1000, math.nan)
  ahead = {p.axis: p for p in scaling.predictions(points, wanted)}
  assert list(ahead) == ['parameters', 'compute']  # all saw as many tokens
  near = ahead['parameters']
  assert near.loss == pytest.approx(found(4**7))
  assert near.interval[0] < near.loss < near.interval[1]
  assert near.error is None


def test_what_has_no_law_is_refused():
  with pytest.raises(ConfigError, match='at least 3 models, got 2'):
    scaling.fit(law(2), 'parameters')
  with pytest.raises(ConfigError, match='same tokens: nothing to fit'):
    scaling.fit(law(4), 'tokens')
  same = [scaling.Point(name, 5, 1000, 1.0) for name in 'abc']
  with pytest.raises(ConfigError, match='same size and tokens'):
    scaling.axes(same)
  with pytest.raises(ConfigError, match="'m1' has no tokens"):
    scaling.fit(law(3, tokens=0), 'tokens')
  points = [*law(3), scaling.Point('odd', 5, 1000, -1.0)]
  with pytest.raises(ConfigError, match="'odd' has the held-out loss -1.0"):
    scaling.fit(points, 'parameters')


def run_of(folder, name, loss):
  """The folder of a run that was not trained."""
  folder.mkdir(parents=True)
  config = workdir.to_json(ALL[CONFIG + ':token']())
  depth = int(name.split('_')[1])
  config['backbone'].update(depth=depth, width=16 * depth, heads=depth)
  config['backbone']['block']['mlp']['hidden'] = 48 * depth
  config['condition']['width'] = 16 * depth
  (folder / 'config.json').write_text(json.dumps(config))
  lines = [
    {'step': 1, 'examples': 64, 'held_out/loss': 9.0},
    {'step': 2, 'examples': 128, 'loss': 1.0, 'held_out/loss': loss},
    {'step': 2, 'examples': 128, 'loss': 1.0},
  ]
  text = '\n'.join(json.dumps(line) for line in lines)
  (folder / 'log.jsonl').write_text(text + '\n')


def test_the_command_collects_runs(tmp_path, capsys):
  flags = []
  for depth, loss in ((1, 4.0), (2, 3.0), (3, 2.5), (4, 2.2)):
    run_of(tmp_path / f'token_{depth}', f'token_{depth}', loss)
    flags.append(f'--workdir={tmp_path}/token_{depth}')
  assert main(['scaling', *flags, f'--output={tmp_path}/out']) == 0
  record = json.loads((tmp_path / 'out' / 'scaling.json').read_text())
  first = record['points'][0]
  # 64 tokens; a layer of width 16 has qkv, out, three matrices of 48, two norms.
  assert first['tokens'] == 128 * 64
  assert first['parameters'] == 16 * 64 + 3 * 16 * 48 + 2 * 16 + 16
  assert first['loss'] == 4.0
  assert [found['axis'] for found in record['laws']] == [
    'parameters',
    'compute',
  ]
  said = capsys.readouterr().out
  assert 'token_4' in said and 'correlation -0.99' in said


def test_a_size_is_predicted_before_it_is_trained(
  tmp_path, monkeypatch, capsys
):
  loss = {'token_1': 4.0, 'token_2': 3.0, 'token_3': 2.5, 'token_4': 2.0}
  steps = []

  def train(config, folder):
    if folder.name == 'token_4':
      written = json.loads((folder.parent / 'scaling.json').read_text())
      assert written['next'][0]['measured'] is None
    steps.append(folder.name)
    run_of(folder, folder.name, loss[folder.name])

  monkeypatch.setattr(command, '_train', train)
  planned = lambda name, config: scaling.Point(
    name, scaling.size(config), 128 * 64, math.nan
  )
  monkeypatch.setattr(scaling, 'planned', planned)
  flags = [
    f'--config={CONFIG}',
    '--sizes=token_1,token_2,token_3',
    '--next=token_4',
    f'--output={tmp_path}',
  ]
  assert main(['scaling', *flags]) == 0
  assert steps == list(loss)
  record = json.loads((tmp_path / 'scaling.json').read_text())
  near = record['next'][0]
  assert near['measured'] == 2.0
  assert near['error'] == pytest.approx((near['loss'] - 2.0) / 2.0)
  assert 'measured 2.0000, error' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    ([], 'wanted either --workdir flags, or --config and --sizes'),
    (['--sizes=a,b,c'], '--sizes needs --config'),
    ([f'--config={CONFIG}', '--sizes=scale_1'], 'at least 3 models, got 1'),
    (
      [f'--config={CONFIG}', '--sizes=scale_1,scale_2,scale_0'],
      "depth '0' in .*: wanted 1 to 99 layers",
    ),
    (
      [f'--config={CONFIG}', '--sizes=scale_1,scale_2,scale_x'],
      "depth 'x' in 'scale_x'",
    ),
    (['--workdir=a', '--workdir=b', '--workdir=c'], "'a' is not the folder"),
    (['--workdir=a', '--next=b'], 'go with --sizes'),
    ([f'--config={CONFIG}', '--sizes=a,b,c', '--next=c'], 'is among --sizes'),
  ],
)
def test_what_cannot_be_fitted_is_refused(flags, said, tmp_path, capsys):
  assert main(['scaling', *flags, f'--output={tmp_path}/out']) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1
  assert re.search(said, error), error
  assert not (tmp_path / 'out').exists()
