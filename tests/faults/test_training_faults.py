"""Training where something is broken, foreign or infinite."""

import json
import os
import signal
import threading
import time

import numpy as np
import pytest

from arvision.build import ConfigError
from arvision.data.base import DataError
from arvision.training.hooks import Diverged
from tests.parts import training_toys as toys


def checkpoints(workdir):
  folder = workdir / 'checkpoints'
  return sorted(int(p.name) for p in folder.glob('*') if p.name.isdigit())


def truncate(folder):
  for file in folder.rglob('*'):
    if file.is_file() and file.parent.name == 'd':
      os.truncate(file, 20)


def lose_metadata(folder):
  (folder / 'state' / '_METADATA').unlink()


def empty(folder):
  for file in sorted(folder.rglob('*'), reverse=True):
    file.unlink() if file.is_file() else file.rmdir()


def tear_meta(folder):
  (folder / 'meta' / 'metadata').write_text('{"step": 1')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole')
  toys.run(toys.config(), folder)
  return folder


@pytest.mark.parametrize('damage', [truncate, lose_metadata, empty, tear_meta])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
  whole, tmp_path, damage
):
  toys.run(toys.config(), tmp_path, stop_at=7)
  assert checkpoints(tmp_path) == [5, 7]
  damage(tmp_path / 'checkpoints' / '7')
  toys.run(toys.config(), tmp_path)
  assert [p.name for p in (tmp_path / 'damaged').iterdir()] == ['7.0']
  a, b = toys.arrays(whole), toys.arrays(tmp_path)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])
  lines = (tmp_path / 'log.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [3, 6, 6, 9, 12, 12]


def test_without_a_whole_checkpoint_training_does_not_start_over(tmp_path):
  toys.run(toys.config(), tmp_path, stop_at=7)
  for step in checkpoints(tmp_path):
    tear_meta(tmp_path / 'checkpoints' / str(step))
  with pytest.raises(DataError, match='all checkpoints .* were damaged'):
    toys.run(toys.config(), tmp_path)
  assert len(list((tmp_path / 'damaged').iterdir())) == 2


def test_a_foreign_folder_is_refused_and_untouched(tmp_path):
  toys.run(toys.config(), tmp_path, stop_at=2)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
  other = toys.config(toy__width=9, optim__learning_rate=0.1)
  with pytest.raises(ConfigError) as error:
    toys.run(other, tmp_path)
  assert 'config.toy.width: 8 there, 9 here' in str(error.value)
  assert 'config.optim.learning_rate: 0.05 there, 0.1 here' in str(error.value)
  assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}


def test_checkpoints_without_a_config_are_refused(tmp_path):
  toys.run(toys.config(), tmp_path, stop_at=2)
  (tmp_path / 'config.json').unlink()
  with pytest.raises(ConfigError, match='checkpoints but no config.json'):
    toys.run(toys.config(), tmp_path)


@pytest.mark.parametrize(
  ('key', 'value'), [('seed', 4), ('data__batch_size', 8)]
)
def test_another_position_in_the_data_is_refused(tmp_path, key, value):
  toys.run(toys.config(), tmp_path, stop_at=2)
  changed = toys.config(**{key: value})
  from arvision.training import workdir

  workdir.save_config(tmp_path, changed)  # as if edited by hand
  name = key.replace('__', '.')
  with pytest.raises(ConfigError, match=f'was made with config.{name}='):
    toys.run(changed, tmp_path)
  assert checkpoints(tmp_path) == [2]


def test_a_longer_duration_goes_on(tmp_path):
  toys.run(toys.config(6), tmp_path)
  assert toys.run(toys.config(8), tmp_path).step == 8


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  config = toys.config(toy__bad_step=7)
  with pytest.raises(Diverged) as error:
    toys.run(config, tmp_path)
  said = str(error.value)
  assert 'loss was nan at step 8' in said
  assert 'checkpoint of step 5' in said and 'learning_rate' in said
  assert checkpoints(tmp_path) == [5]
  for name, array in toys.arrays(tmp_path).items():
    assert np.isfinite(array).all(), name


def test_a_bad_loss_in_the_step_of_a_save_is_not_saved(tmp_path):
  with pytest.raises(Diverged, match='at step 5'):
    toys.run(toys.config(toy__bad_step=4), tmp_path)
  assert checkpoints(tmp_path) == []


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(tmp_path, number):
  before = signal.getsignal(number)
  config = toys.config(10**6, log__every={'steps': 10**5})
  config.evals.every = config.pictures.every = {'steps': 0}
  config.checkpoint.every = {'steps': 10**5}

  def send():
    # Only when steps are taken is the handler in place.
    while signal.getsignal(number) is before:
      time.sleep(0.01)
    os.kill(os.getpid(), number)

  thread = threading.Thread(target=send, daemon=True)
  thread.start()
  result = toys.run(config, tmp_path)
  thread.join()
  assert result.signal == number and result.step < result.total
  assert checkpoints(tmp_path) == [result.step]
  assert signal.getsignal(number) is before


def test_a_url_is_no_workdir(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ConfigError, match='mount what is behind the URL'):
    toys.run(toys.config(), 'gs://bucket/run')
  assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'mesh': {'data': 3}}, 'has 3 devices, there'),
    ({'mesh': {'data': -1, 'tensr': 1}}, "Did you mean 'tensor'"),
    ({'optim__accumulate': 3}, 'make it a multiple of 3'),
    ({'train__duration': {'steps': 1, 'epochs': 1}}, 'config.train.duration'),
    ({'log__every': {'step': 1}}, 'config.log.every.step'),
    ({'checkpoint__keep': 0}, 'config.checkpoint.keep'),
    ({'data__batch_size': 1000}, 'only 96 examples'),
  ],
)
def test_a_wrong_config_is_refused_before_anything_runs(
  tmp_path, changes, said
):
  with pytest.raises(ConfigError, match=said):
    toys.run(toys.config(**changes), tmp_path / 'run')
  assert not (tmp_path / 'run' / 'log.jsonl').exists()
