"""`arvision train`: configs, overrides, exit codes and what is said."""

import pathlib

import pytest
from ml_collections import ConfigDict

from arvision import catalog
from arvision.commands import common, main, train
from arvision.errors import ConfigError

CONFIG = """
from ml_collections import ConfigDict


def get_config(arg='small'):
  if arg not in ('small', 'large'):
    raise ValueError(f"no size '{arg}'; there are: small, large")
  config = ConfigDict({
    'width': 8 if arg == 'small' else 16,
    'rate': 0.5,
    'flip': False,
    'path': '',
    'end': None,
    'betas': (0.9, 0.99),
    'duration': {'epochs': 3.0},
    'schedule': {
      'type': 'training.schedule.WarmupCosine', 'warmup': {'steps': 1},
      'final': 0.1,
    },
  })
  config.lock()
  return config
"""


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'toy.py'
  path.write_text(CONFIG)
  return str(path)


def test_a_config_is_found_by_path_and_by_name(file):
  assert common.load_config(file).width == 8
  assert common.load_config(f'{file}:large').width == 16
  found = catalog.find('var/digits')
  assert found.is_file() and found.parts[-2:] == ('var', 'digits.py')
  assert found.samefile(catalog.find('configs/var/digits.py'))


def test_overrides_have_the_type_of_what_they_replace(file):
  config = common.load_config(
    file,
    [
      'width=3',
      'rate=2',
      'flip=true',
      'path=a=b',
      'betas=(0.5,0.6)',
      'end=7',
      'schedule.final=0',
    ],
  )
  assert config.width == 3 and config.flip is True and config.path == 'a=b'
  assert config.rate == 2.0 and isinstance(config.rate, float)
  assert config.betas == (0.5, 0.6) and config.end == 7
  assert config.schedule.final == 0.0
  assert config.is_locked


def test_a_duration_may_get_another_unit(file):
  config = common.load_config(file, ['duration.steps=10'])
  assert config.duration.to_dict() == {'steps': 10}


def test_a_block_may_get_another_type(file):
  config = common.load_config(
    file,
    ['schedule.type=training.schedule.WarmupLin0', 'schedule.flat=0.2'],
  )
  assert config.schedule.flat == 0.2 and config.schedule.final == 0.1
  config = common.load_config(
    file, ['schedule.type=training.schedule.Constant']
  )
  assert 'final' not in config.schedule and 'warmup' in config.schedule


@pytest.mark.parametrize(
  ('override', 'said'),
  [
    ('rat=1', "config.rat: no such key. Did you mean 'rate'"),
    ('schedule.finel=1', "Did you mean 'final'"),
    ('shedule.final=1', "config.shedule: no such key. Did you mean 'schedule'"),
    ('width.x=1', 'config.width=8 is no block'),
    ('width=1.5', '--config.width=1.5: wanted a value like 8'),
    ('rate=fast', '--config.rate=fast: wanted a value like 0.5'),
    ('schedule.type=training.schedule.WarmupLin', "Did you mean 'WarmupLin"),
  ],
)
def test_wrong_overrides_are_refused(file, override, said):
  with pytest.raises(ConfigError) as error:
    common.load_config(file, [override])
  assert said in str(error.value)


def test_overrides_are_told_from_flags():
  plain, overrides = common.split_overrides(
    ['--workdir=x', '--config.a.b=1', '--config', 'c.py', '--config.d', '2']
  )
  assert plain == ['--workdir=x', '--config', 'c.py']
  assert overrides == ['a.b=1', 'd=2']


@pytest.mark.parametrize(
  ('argv', 'code', 'said'),
  [
    (['trian'], 2, "Did you mean 'train'"),
    (['train', '--config=var/digts', '--workdir=x'], 2, 'var/digits'),
    (['train', '--config=var/digits', '--workdir=x', '--worker=1'], 2, "'--w"),
    (['train', '--config=var/imagenet256:d1', '--workdir=x'], 2, "size 'd1'"),
    (
      ['train', '--config=var/digits', '--workdir=x', '--config.seeds=1'],
      2,
      "Did you mean 'seed'",
    ),
  ],
)
def test_mistakes_are_one_line_and_exit_code_2(argv, code, said, capsys):
  assert main.main(argv) == code
  out = capsys.readouterr()
  assert out.err.startswith('arvision: error: ') and said in out.err
  assert 'Traceback' not in out.err


def test_a_missing_tokenizer_is_explained(tmp_path, capsys):
  run = tmp_path / 'run'
  nowhere = tmp_path / 'nowhere'
  argv = ['train', '--config=var/digits', f'--workdir={run}']
  assert main.main([*argv, f'--config.frozen.tokenizer={nowhere}']) == 2
  assert 'Train it first' in capsys.readouterr().err
  assert not run.exists()


def test_a_diverged_run_has_its_own_exit_code(monkeypatch, capsys):
  from arvision.training.divergence import Diverged

  def diverge(argv):
    raise Diverged('loss was nan at step 3')

  monkeypatch.setattr(train, 'main', diverge)
  assert main.main(['train']) == 1
  assert capsys.readouterr().err == 'arvision: error: loss was nan at step 3\n'


def test_help_has_a_line_for_every_command(capsys):
  assert main.main(['--help']) == 0
  lines = capsys.readouterr().out.splitlines()
  found = {line.split()[0] for line in lines if line.startswith('  ')}
  folder = pathlib.Path(main.__file__).parent
  assert {'train', 'sample', 'eval'} <= found
  assert 'common' not in found and 'main' not in found
  found.remove('arvision')  # of the examples
  assert all((folder / f'{name}.py').exists() for name in found)


def test_a_stopped_run_says_how_to_go_on(monkeypatch, tmp_path, capsys):
  import signal

  from arvision.training import loop

  for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
    result = loop.Result(5, 9, number)
    monkeypatch.setattr(loop, 'train', lambda *a, r=result, **k: r)
    monkeypatch.setattr(common, 'load_config', lambda *a: ConfigDict())
    argv = ['train', '--config=x', f'--workdir={tmp_path}']
    assert main.main(argv) == code
    assert 'after step 5 of 9' in capsys.readouterr().out
