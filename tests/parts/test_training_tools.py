"""Tools beside training: profiles and writers of metrics."""

import sys
import types

import jax
import pytest

from arvision.commands import common, main
from arvision.errors import ConfigError
from arvision.training import profile
from tests.parts import training_toys as toys


def test_a_profile_holds_the_steps_that_it_was_asked_for(tmp_path, capsys):
  config = toys.config()
  with pytest.raises(ConfigError, match='--profile=9:13: .* after step 12'):
    toys.run(config, tmp_path, profile=(9, 13))
  assert not (tmp_path / 'config.json').exists()
  toys.run(config, tmp_path, profile=(2, 4), stop_at=6)
  assert 'steps 2 to 4 are profiled' in capsys.readouterr().out
  (file,) = tmp_path.glob('tensorboard/plugins/profile/*/*.xplane.pb')
  found = jax.profiler.ProfileData.from_file(str(file))
  steps = {
    dict(event.stats).get('step_num')
    for plane in found.planes
    for line in plane.lines
    for event in line.events
    if event.name == 'train'
  }
  assert steps == {2, 3, 4}
  toys.run(config, tmp_path, profile=(2, 4), stop_at=7)
  assert 'no profile: steps 2 to 4 are already' in capsys.readouterr().out


def test_wrong_profiles_are_refused(capsys):
  for text in ('5', '5:', '0:3', '7:3', '1.5:3', '1:2000'):
    with pytest.raises(ConfigError, match='--profile=.*wanted'):
      profile.parse(text)
  line = ['train', '--config=var/digits', '--workdir=x', '--profile=7:3']
  assert main.main(line) == 2
  assert capsys.readouterr().err.count('\n') == 1


WANDB = {'type': 'training.wandb.Wandb', 'project': 'toys', 'mode': 'offline'}


class StandIn(types.ModuleType):
  """What arvision calls of wandb."""

  class errors:  # noqa: N801
    class Error(Exception):
      pass

  def __init__(self):
    super().__init__('wandb')
    self.started, self.logged, self.ended = [], [], []

  def init(self, **options):
    if options['project'] == 'closed':
      raise self.errors.Error('permission\ndenied')
    self.started.append(options)
    return types.SimpleNamespace(
      define_metric=lambda name, step_metric=None: None,
      log=self.logged.append,
      finish=lambda exit_code: self.ended.append(exit_code),
    )

  def Image(self, sheet):  # noqa: N802
    return sheet.shape


def test_weights_and_biases_continue_one_run(tmp_path, monkeypatch):
  board = StandIn()
  monkeypatch.setitem(sys.modules, 'wandb', board)
  config = toys.config(log__every={'steps': 1}, writers={'b': WANDB})
  toys.run(config, tmp_path, stop_at=2)
  toys.run(config, tmp_path, stop_at=4)
  first, second = board.started
  assert first['id'] == second['id'] and second['resume'] == 'allow'
  assert first['project'] == 'toys' and first['config']['seed'] == 3
  steps = [line['step'] for line in board.logged if 'loss' in line]
  assert steps == [1, 2, 3, 4] and board.ended == [0, 0]
  assert board.logged[0]['pictures/first_batch'][2] == 3
  closed = toys.config(writers={'b': {**WANDB, 'project': 'closed'}})
  with pytest.raises(ConfigError, match=r'\(permission denied\); log in'):
    toys.run(closed, tmp_path)
  (tmp_path / 'wandb.json').write_text('{"id": "../x"}')
  with pytest.raises(ConfigError, match=r'wandb.json: wanted'):
    toys.run(config, tmp_path)


def test_writers_are_checked_before_anything_is_written(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  lines = ['writers.b.type=training.wandb.Wandb', 'writers.b.project=mine']
  config = common.load_config('var/digits', lines)
  assert config.writers.b.to_dict() == {
    'type': WANDB['type'],
    'project': 'mine',
  }
  for block, said in (
    (WANDB, r"needs the package wandb: pip install 'arvision\[wandb\]'"),
    ({'type': 'training.schedule.Constant'}, 'is no writer'),
  ):
    with pytest.raises(ConfigError, match=said):
      toys.run(toys.config(writers={'b': block}), tmp_path)
  assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_weights_and_biases_itself(tmp_path):
  config = toys.config(writers={'b': WANDB})
  for stop in (3, 6):
    toys.run(config, tmp_path, stop_at=stop)
  runs = [*tmp_path.glob('wandb/offline-run-*/*.wandb')]
  assert len(runs) == 2 and len({run.name for run in runs}) == 1
