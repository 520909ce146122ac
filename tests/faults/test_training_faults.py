"""Training where something is broken, foreign or infinite."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from arvision.errors import ConfigError, DataError
from arvision.runs.measure import InTraining
from arvision.training import lock, loop
from arvision.training.divergence import Diverged
from arvision.training.weights import load_params
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


def flip_a_bit(folder):
  """In the middle of the largest file, where the arrays are."""
  file = max(folder.rglob('*'), key=lambda p: p.is_file() and p.stat().st_size)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 8
  file.write_bytes(content)


def not_utf8(folder):
  (folder / 'meta' / 'metadata').write_bytes(b'{"step": 7, "data": "\xff\xfe"}')


DAMAGES = [truncate, lose_metadata, empty, tear_meta, flip_a_bit, not_utf8]


@pytest.mark.parametrize('damage', DAMAGES)
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


@pytest.mark.parametrize(
  ('part', 'step'), [('params', 12), ('ema', 5), ('opt_state', 10)]
)
def test_an_update_that_is_not_finite_is_not_saved(tmp_path, part, step):
  """The loss of that step is finite: it was measured before the update."""
  config = toys.config(toy__bad_update=step - 1, toy__bad_part=part)
  with pytest.raises(Diverged, match=f'{part}/.* was not finite') as error:
    toys.run(config, tmp_path)
  said = str(error.value)
  assert f'after step {step}' in said
  before = [s for s in (5, 10) if s < step]
  assert checkpoints(tmp_path) == before
  assert said.count('no checkpoint yet') == (not before)
  assert not before or f'checkpoint of step {before[-1]} is from' in said
  log = (tmp_path / 'log.jsonl').read_text()
  assert 'NaN' not in log


def test_the_advice_names_keys_of_this_config(tmp_path):
  config = toys.config(toy__bad_step=0, optim__clip=0.0)
  config.toy_dtypes = {'dtype': 'bfloat16', 'other_dtype': 'float32'}
  with pytest.raises(Diverged) as error:
    toys.run(config, tmp_path)
  keys = set(re.findall(r'config\.([\w.]+\w)', str(error.value)))
  assert keys == {
    'optim.learning_rate',
    'optim.clip',
    'optim.schedule.warmup.steps',
    'toy_dtypes.dtype',
  }
  assert '--init_from' not in str(error.value)  # there is nothing to take


def test_what_the_advice_says_is_taken(tmp_path):
  with pytest.raises(Diverged) as error:
    toys.run(toys.config(toy__bad_step=7), tmp_path / 'old')
  (source,) = re.findall(r'--init_from=(\S+) ', str(error.value))
  config = toys.config(optim__learning_rate=0.01, optim__clip=0.5)
  new = toys.run(config, tmp_path / 'new', init_from=source, stop_at=2)
  assert new.step == 2


class Intact(toys.Data):
  """The batches that hold no broken example."""

  def train(self, *args):
    batches = super().train(*args)
    take = type(batches).__next__

    class Finite(type(batches)):
      def __next__(self):
        while not np.isfinite((batch := take(self))['image']).all():
          pass
        return batch

    batches.__class__ = Finite
    return batches


def broken(**options):
  return toys.config(toy_data={'broken': 17}, not_finite=options)


def test_a_rollback_leaves_out_the_batch(tmp_path):
  """The run is that over data without the batch, and resumes to the bit."""
  config = broken(action='rollback', most=3)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  toys.run(config, whole)
  steps = json.loads((whole / 'left_out.json').read_text())['steps']
  assert steps == [2, 10, 12] and checkpoints(whole) == [10, 12]
  intact = lambda config: Intact(**config.toy_data)
  options = {'make_data': intact, 'make_task': toys.make_task}
  loop.train(
    config, tmp_path / 'intact', make_in_training=InTraining, **options
  )
  for stop in (3, 11, None):
    toys.run(config, parts, stop_at=stop)
  found = toys.arrays(whole)
  for other in (parts, tmp_path / 'intact'):
    for name, array in toys.arrays(other).items():
      np.testing.assert_array_equal(array, found[name], err_msg=name)
  with pytest.raises(Diverged, match='not finite|nan'):
    toys.run(broken(action='rollback', most=1), tmp_path / 'most')


def test_a_skipped_step_changes_nothing(tmp_path):
  config = broken(action='skip', most=2)
  toys.run(config, tmp_path / 'whole')
  log = [json.loads(x) for x in (tmp_path / 'whole/log.jsonl').open()]
  shares = {x['step']: x['skipped'] for x in log if 'skipped' in x}
  assert sum(3 * share for share in shares.values()) == pytest.approx(2)
  assert all(np.isfinite(x.get('loss', 0.0)) for x in log)
  for stop in (8, None):
    toys.run(config, tmp_path / 'parts', stop_at=stop)
  found = toys.arrays(tmp_path / 'whole')
  for name, array in toys.arrays(tmp_path / 'parts').items():
    np.testing.assert_array_equal(array, found[name], err_msg=name)
  # Ten steps of sixteen examples.
  assert found['extra/seen'].sum() == 10 * 16
  with pytest.raises(Diverged, match='3 steps were not finite'):
    options = {'action': 'skip', 'most': 2}
    toys.run(
      toys.config(20, toy_data={'broken': 17}, not_finite=options),
      tmp_path / 'most',
    )
  # An update that is not finite, though its loss is.
  config = toys.config(
    toy__bad_update=6, toy__bad_part='ema', not_finite=options
  )
  toys.run(config, tmp_path / 'update')
  for name, array in toys.arrays(tmp_path / 'update').items():
    assert np.isfinite(array).all(), name


def held_out(workdir):
  lines = (workdir / 'log.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  return {x['step']: x['held_out/loss'] for x in lines if 'held_out/loss' in x}


def growing(**changes):
  """A run that is best early: its rate is far too large."""
  config = toys.config(optim__learning_rate=2.0, optim__clip=0.0, **changes)
  config.optim.schedule.warmup = {'steps': 4}
  config.evals.every = {'steps': 2}
  config.checkpoint.update(every={'steps': 5}, keep=1, best='held_out/loss')
  return config


@pytest.mark.parametrize('stops', [(), (7,), (3, 5, 9, 11)])
def test_the_best_and_the_newest_are_kept_through_stops(tmp_path, stops):
  for stop in (*stops, 12):
    toys.run(growing(), tmp_path, stop_at=stop)
    figures = held_out(tmp_path)
    best = min(figures, key=figures.get, default=None)
    assert checkpoints(tmp_path) == sorted({stop, best} - {None})
  assert best not in (5, 10, 12)  # saved for being the best alone
  assert load_params(tmp_path, step='best')[2] == best
  assert load_params(tmp_path)[2] == 12


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'checkpoint__best': 'held_out/los'}, "Did you mean 'held_out/loss'"),
    ({'checkpoint__best': 'loss'}, 'There are: held_out/.*ema_0.9/accuracy'),
    (
      {'checkpoint__best': 'held_out/loss', 'evals__every': {'steps': 0}},
      'config.evals.every is 0',
    ),
    (
      {
        'checkpoint__best': 'held_out/loss',
        'toy_data__held_out_examples': 0,
      },
      'nothing is held out',
    ),
  ],
)
def test_a_best_that_will_not_be_measured_is_refused(tmp_path, changes, said):
  config = toys.config(**changes)
  with pytest.raises(ConfigError, match=said):
    toys.run(config, tmp_path)
  assert checkpoints(tmp_path) == []
  config.checkpoint.best = ''
  toys.run(config, tmp_path, stop_at=1)


def test_a_second_run_is_refused_and_changes_nothing(tmp_path):
  toys.run(toys.config(), tmp_path, stop_at=2)
  with lock.held(tmp_path):
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
    with pytest.raises(ConfigError) as error:
      toys.run(toys.config(), tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
  said = str(error.value)
  assert f'process {os.getpid()} on {socket.gethostname()}' in said
  assert toys.run(toys.config(), tmp_path, stop_at=3).step == 3
  assert not (tmp_path / lock.FILE).exists()


def test_a_run_that_was_taken_over_saves_nothing_more(tmp_path, monkeypatch):
  take = lock.Lock.take

  def usurped(self):
    take(self)
    self._path.write_text('{}')

  monkeypatch.setattr(lock.Lock, 'take', usurped)
  with pytest.raises(ConfigError, match='taken over by another process'):
    toys.run(toys.config(), tmp_path)
  assert checkpoints(tmp_path) == []
  assert (tmp_path / lock.FILE).read_text() == '{}'


HOLD = """
import sys, time
from arvision.training.lock import held
with held(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
"""


def test_a_killed_run_is_taken_over(tmp_path, capsys):
  argv = [sys.executable, '-c', HOLD, str(tmp_path)]
  with subprocess.Popen(argv, stdout=subprocess.PIPE) as other:
    assert other.stdout.readline() == b'held\n'
    with (
      pytest.raises(ConfigError, match=f'process {other.pid} on'),
      lock.held(tmp_path),
    ):
      pass
    other.kill()
    # Not waited for: a zombie holds nothing either.
    deadline = time.time() + 5
    while lock._process(other.pid) and time.time() < deadline:
      time.sleep(0.01)
    with lock.held(tmp_path):
      pass
    assert f'taking over from process {other.pid}' in capsys.readouterr().out


def foreign(folder, **changes):
  """A lock that another writer left."""
  mine = {**lock._machine(), **lock._process(os.getpid())}
  (folder / lock.FILE).write_text(json.dumps({**mine, **changes}))
  return lock.Lock(folder, beat=0.05, patience=0.2)


def test_a_later_process_with_the_same_number_is_not_taken_for_the_first(
  tmp_path,
):
  own = foreign(tmp_path, started='1')
  own.take()
  own.release()


@pytest.mark.parametrize('content', [{'host': 'elsewhere'}, {'pids': 'x'}])
def test_another_machine_is_watched_for_signs_of_life(tmp_path, content):
  own = foreign(tmp_path, **content)
  path = tmp_path / lock.FILE
  living = threading.Event()

  def live():
    while not living.wait(0.02):
      os.utime(path)

  thread = threading.Thread(target=live)
  thread.start()
  with pytest.raises(ConfigError, match=f'certainly ended, delete {path}'):
    own.take()
  living.set()
  thread.join()
  own.take()
  assert own.mine()
  own.release()


def test_a_torn_lock_does_not_last(tmp_path):
  own = foreign(tmp_path)
  (tmp_path / lock.FILE).write_bytes(b'\xff{')
  own.take()
  own.release()
  assert [*tmp_path.iterdir()] == []


def test_an_old_run_goes_on_without_what_came_later(tmp_path):
  toys.run(toys.config(), tmp_path, stop_at=2)
  config = toys.config()
  config.ema_warmup = True
  toys.run(config, tmp_path, stop_at=3)
  kept = json.loads((tmp_path / 'config.json').read_text())
  assert kept['ema_warmup'] is False
  other = tmp_path / 'other'
  toys.run(config, other, resume_from=tmp_path, stop_at=4)


def test_a_log_with_foreign_bytes_is_cut(whole, tmp_path):
  toys.run(toys.config(), tmp_path, stop_at=5)
  with (tmp_path / 'log.jsonl').open('ab') as file:
    file.write(b'\xff\xfe\n[1]\n{"step": "3"}\n{"step": NaN}\n')
    file.write(b'{"step": 1' + b'0' * 400 + b'}\n' + b'[' * 100_000 + b'\n7')
  toys.run(toys.config(), tmp_path)
  steps = lambda f: [
    json.loads(x)['step'] for x in (f / 'log.jsonl').read_text().splitlines()
  ]
  assert steps(tmp_path) == steps(whole)


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
  with pytest.raises(ConfigError, match='wanted a folder, got a URL'):
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
