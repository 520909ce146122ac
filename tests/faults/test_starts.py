"""How runs start: in refused folders, from other runs, and interrupted."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

from arvision.commands.main import main
from arvision.errors import ConfigError, DataError
from arvision.runs.trained import load_run
from arvision.training import differences, frozen, workdir
from arvision.training.trees import save_tree
from tests.faults.test_going_on import moved, with_tokenizer
from tests.parts import training_toys as toys

__all__ = ['moved']  # a fixture


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of 12 steps of 16."""
  folder = tmp_path_factory.mktemp('whole')
  toys.run(toys.config(), folder)
  return folder


# ------------------------------------------------------------ refused starts


@pytest.mark.parametrize(
  ('changes', 'options'),
  [
    ({'toy__width': 6}, {'init_from': 'whole'}),
    ({}, {'init_from': 'nowhere'}),
    ({}, {'resume_from': 'nowhere'}),
    ({'toy__width': 6}, {'resume_from': 'whole'}),
    ({'checkpoint__keep': 0}, {}),
    ({'data__batch_size': 1000}, {}),
    ({'optim__accumulate': 3}, {}),
    ({'optim__schedule__warmup': {'steps': 99}}, {}),
    ({'mesh': {'data': 3}}, {}),
  ],
)
def test_a_refused_start_writes_nothing(whole, tmp_path, changes, options):
  shutil.copytree(whole, tmp_path / 'whole')
  options = {key: tmp_path / name for key, name in options.items()}
  with pytest.raises((ConfigError, DataError)):
    toys.run(toys.config(**changes), tmp_path / 'run', **options)
  assert not (tmp_path / 'run').exists()


def test_a_broken_first_batch_writes_nothing(tmp_path):
  class Broken(toys.Data):
    def _batch(self, ranks, noise):
      raise DataError('broken.png')

  make_data = lambda config: Broken()
  with pytest.raises(DataError, match='broken.png'):
    from arvision.runs.train import train

    train(
      toys.config(),
      tmp_path / 'run',
      make_data=make_data,
      make_task=toys.make_task,
    )
  assert not (tmp_path / 'run').exists()


def test_a_start_that_took_no_step_binds_nobody(tmp_path, monkeypatch):
  from arvision.training import start

  def fails(*_):
    raise MemoryError('RESOURCE_EXHAUSTED')

  with monkeypatch.context() as patch:
    patch.setattr(start, 'compile_step', fails)
    with pytest.raises(MemoryError):
      toys.run(toys.config(), tmp_path)
  assert (tmp_path / 'config.json').exists()
  assert toys.run(toys.config(toy__width=6), tmp_path, stop_at=1).step == 1
  assert workdir.load_config(tmp_path).toy.width == 6
  with pytest.raises(ConfigError, match='toy.width: 6 there, 8 here'):
    toys.run(toys.config(), tmp_path)


def test_a_run_that_has_figures_binds_its_folder(tmp_path):
  toys.run(toys.config(), tmp_path, stop_at=3)
  shutil.rmtree(tmp_path / 'checkpoints')
  with pytest.raises(ConfigError, match='toy.width'):
    toys.run(toys.config(toy__width=6), tmp_path)


def test_a_folder_of_something_else_is_not_taken(tmp_path):
  (tmp_path / 'config.json').write_text('{"architectures": ["Bert"]}')
  (tmp_path / 'model.safetensors').write_text('')
  with pytest.raises(ConfigError, match='another config'):
    toys.run(toys.config(), tmp_path)
  assert 'Bert' in (tmp_path / 'config.json').read_text()


# ----------------------------------------------------- weights of another run


def test_init_from_names_what_does_not_fit_and_the_flag(whole, tmp_path):
  with pytest.raises(ConfigError) as error:
    toys.run(toys.config(toy__width=6), tmp_path / 'run', init_from=whole)
  said = str(error.value)
  assert 'hidden/bias: (8,) there, (6,) here' in said
  assert '--init_partial loads the 1 arrays that fit' in said


def test_init_partial_takes_what_fits(whole, tmp_path, capsys):
  config = toys.config(toy__width=6, optim__learning_rate=0.0)
  options = {'init_from': whole, 'init_partial': True, 'stop_at': 1}
  toys.run(config, tmp_path / 'run', **options)
  said = capsys.readouterr().out
  assert '1 arrays are loaded' in said and 'out/kernel: (8, 4) there' in said
  assert '(raw, not a running average)' in said
  toys.run(config, tmp_path / 'fresh', stop_at=1)
  new, old = toys.arrays(tmp_path / 'run'), toys.arrays(whole)
  fresh = toys.arrays(tmp_path / 'fresh')
  for name in ('params', 'ema/0.9'):
    np.testing.assert_array_equal(
      new[f'{name}/out/bias'], old['params/out/bias']
    )
    for path in ('hidden/kernel', 'hidden/bias', 'out/kernel'):
      np.testing.assert_array_equal(
        new[f'{name}/{path}'], fresh[f'{name}/{path}']
      )


def test_init_partial_alone_is_refused(capsys):
  argv = ['train', '--config=var/digits', '--workdir=x', '--init_partial']
  assert main(argv) == 2
  assert '--init_from' in capsys.readouterr().err


def test_init_partial_of_a_run_that_shares_nothing(whole, tmp_path):
  shutil.copytree(whole, tmp_path / 'other')
  shutil.rmtree(tmp_path / 'other' / 'checkpoints')
  save_tree(tmp_path / 'other' / 'imported', {'params': {'a': np.zeros(3)}})
  for partial in (False, True):
    with pytest.raises(ConfigError) as error:
      toys.run(
        toys.config(),
        tmp_path / 'run',
        init_from=tmp_path / 'other',
        init_partial=partial,
      )
    assert 'No array fits' in str(error.value)
    assert '--init_partial' not in str(error.value)


# ------------------------------------------------------------------- messages


def test_a_wrong_folder_says_what_it_holds(moved):
  new = with_tokenizer('')
  with pytest.raises(ConfigError) as error:
    differences.check_same(new, moved)
  said = str(error.value)
  assert (
    'holds a generator' in said and 'trains a tokenizer (Autoencoder)' in said
  )
  assert '\n' not in said


def test_few_of_many_differences_are_shown(whole):
  with pytest.raises(ConfigError) as error:
    toys.run(
      ConfigDict({**toys.config(), 'new': dict.fromkeys('abcdefghi', 1)}), whole
    )
  said = str(error.value).splitlines()
  assert len(said) == 8 and '... and 4 more' in said[-2]


# -------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
  'text',
  [
    '[]',
    '7',
    'null',
    '"x"',
    '{"tokenizer": null}',
    '{"data": [1]}',
    '{"a.b": 1}',
    '[' * 100_000,
    '{"a":' * 60 + '1' + '}' * 60,
    '{"a":' * 900 + '1' + '}' * 900,
    '\udcff',
    '1' * 5000,
  ],
)
def test_a_config_of_another_shape(tmp_path, text):
  data = text.encode('utf-8', 'surrogateescape')
  (tmp_path / 'config.json').write_bytes(data)
  with pytest.raises(ConfigError) as error:
    workdir.load_config(tmp_path)
  said = str(error.value)
  assert str(tmp_path / 'config.json') in said and '\n' not in said
  assert len(said) < 400


_TYPES = {
  'layout': 'layouts.grid.raster',
  'feed': 'feeds.shift.Shift',
  'backbone': 'backbones.decoder.Decoder',
  'head': 'heads.categorical.Categorical',
  'condition': 'layers.condition.ClassLabel',
  'sampler': 'samplers.entity.EntityAR',
}


@pytest.mark.parametrize('lost', ['tokenizer', 'data', 'head'])
def test_a_config_without_its_blocks(tmp_path, lost):
  blocks = {name: {'type': type_} for name, type_ in _TYPES.items()}
  config = with_tokenizer('', **blocks)
  del config[lost]
  workdir.save_config(tmp_path, config)
  save_tree(tmp_path / 'imported', {'params': {'a': np.zeros(3)}})
  with pytest.raises(ConfigError, match=f'config.json is damaged.*{lost}'):
    load_run(tmp_path)


def test_an_interrupted_claim_leaves_nothing(tmp_path, monkeypatch):
  def interrupt(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(workdir, 'save_config', interrupt)
  params = {'tokenizer': {'codes': np.zeros(3, np.float32)}}
  folder = tmp_path / 'run'
  with pytest.raises(KeyboardInterrupt):
    frozen.claim(folder, with_tokenizer(''), {}, imported=params)
  assert not folder.exists()


def test_an_import_that_was_killed_gives_way_to_another(tmp_path):
  save_tree(tmp_path / 'imported', {'params': {'a': np.zeros(3)}})
  (tmp_path / 'frozen.orbax-checkpoint-tmp').mkdir()
  toys.run(toys.config(), tmp_path, stop_at=1)
  names = {path.name for path in tmp_path.iterdir()}
  assert 'checkpoints' in names and 'imported' not in names
  assert 'frozen.orbax-checkpoint-tmp' not in names


_READ = """
import shutil, sys
from arvision.commands.main import main
from arvision.training import weights

read = weights.read_numpy


def deleted_under_it(path, wanted):
  for part in ('d', 'ocdbt.process_0'):
    shutil.rmtree(path / part)
  return read(path, wanted)


weights.read_numpy = deleted_under_it
sys.exit(main(['eval', f'--workdir={sys.argv[1]}']))
"""


def test_a_checkpoint_that_is_deleted_while_it_is_read(whole, tmp_path):
  shutil.copytree(whole, tmp_path / 'run')
  command = [sys.executable, '-c', _READ, str(tmp_path / 'run')]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2
  assert 'Traceback' not in done.stderr
  last = done.stderr.splitlines()[-1]
  assert last.startswith('arvision: error: no checkpoint in')


@pytest.fixture
def interrupts():
  """Ctrl-C interrupts, also where the shell has started the tests without it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('interrupts')
def test_ctrl_c_while_weights_are_written(tmp_path, monkeypatch):
  write = ocp.Checkpointer.save
  written = []

  def interrupted(self, path, *args, **more):
    signal.raise_signal(signal.SIGINT)
    write(self, path, *args, **more)
    written.append(path.exists())

  monkeypatch.setattr(ocp.Checkpointer, 'save', interrupted)
  params = {'tokenizer': {'codes': np.zeros(3, np.float32)}}
  with pytest.raises(KeyboardInterrupt):
    frozen.claim(tmp_path / 'run', with_tokenizer(''), {}, imported=params)
  assert written == [True]
  assert not (tmp_path / 'run').exists()


_IMPORT = """
import importlib, signal, sys
from arvision.commands import main


def native(name):
  try:
    signal.raise_signal(signal.SIGINT)
  except KeyboardInterrupt as error:
    raise ImportError('while initializing the extension') from error


importlib.import_module = native
sys.argv = ['arvision', 'import']
main.run()
"""


def test_ctrl_c_while_modules_are_imported():
  command = [sys.executable, '-c', _IMPORT]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 130
  assert done.stderr == 'arvision: error: interrupted\n'


_DROPPED = """
import gc, importlib, signal, sys, time, types
from arvision.commands import main


def work(argv):
  signal.signal(signal.SIGINT, signal.default_int_handler)
  gc.callbacks.append(once)
  gc.collect()
  gc.callbacks.clear()
  for _ in range(100):
    time.sleep(0.1)
  print('was not interrupted')


def once(phase, info):
  if phase == 'start':
    signal.raise_signal(signal.SIGINT)


def find(name, package=None):
  if name.endswith('.import'):
    return types.SimpleNamespace(main=work)
  return real(name, package)


real, importlib.import_module = importlib.import_module, find
sys.argv = ['arvision', 'import']
main.run()
"""


def test_ctrl_c_in_a_callback_whose_exceptions_are_ignored():
  command = [sys.executable, '-c', _DROPPED]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.stderr == 'arvision: error: interrupted\n'
  assert done.returncode == 130 and not done.stdout
