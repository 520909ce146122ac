"""Stored JSON that names what is no part is refused before it is imported."""

import dataclasses
import json
import os
import sys

import pytest
from ml_collections import ConfigDict

from arvision import trust
from arvision.commands.main import main
from arvision.data.latents import CachedTokens
from arvision.data.tfds import Tfds
from arvision.errors import ConfigError, DataError
from arvision.runs import measure
from arvision.runs.trained import load_run
from arvision.training import workdir
from tests.configs import ALL
from tests.parts import training_toys as toys

# A module that leaves a trace wherever it is imported or called.
EVIL = """
import dataclasses
import pathlib
import subprocess

TRACE = pathlib.Path(__file__).with_name('trace')
TRACE.touch()


@dataclasses.dataclass
class Part:
  command: str = ''

  def __post_init__(self):
    TRACE.touch()


def call(**fields):
  TRACE.touch()
"""
# Blocks that run something where they are built.
ATTACKS = {
  'sampler': [
    'os.system',
    'subprocess.Popen',
    'evil.Part',
    'evil.call',
    'arvision.evil.Part',
    'builtins.exec',
    'commands.main.main',
    'arvision.commands.main.main',
    'runs.released.import_weights',
    'importers.files.write',
    'samplers.entity.dataclasses.make_dataclass',
    'samplers.entity.dataclass',
    'samplers.entity.__builtins__',
    'samplers.entity.EntityAR.__init__',
    'samplers.entity.LogitsFilter',
    'samplers.base._Hidden',
    'data.folder.Folder',
    'layers.conv.Encoder',
    '__main__.x',
    'arvision.__main__.run',
    'samplers..entity.EntityAR',
    '../evil.Part',
    'evil',
    '',
    3,
    None,
    ['os', 'system'],
  ],
  'sampler.logits_filter': ['os.system', 'evil.Part', 'data.folder.Folder'],
  'data.source': ['os.system', 'evil.Part', 'samplers.entity.EntityAR'],
  'data.notes.deep': ['os.system', 'evil.Part'],
  'optim': ['os.system', 'training.checkpoint.Checkpoints', 'optax.sgd'],
  'optim.schedule': ['training.writers.Writer', 'training.workdir.save_config'],
  'release': ['importers.torch_file.Record', 'importers.files.write'],
  'layout': ['layouts.base.Layout.__new__', 'layouts.grid.functools.partial'],
  'task.teacher': ['evil.Part'],
  'mesh': ['evil.Part', 'parallel.mesh.make_mesh'],
  'unheard_of': ['evil.Part', 'samplers.entity.EntityAR'],
}
CASES = [(key, path) for key, paths in ATTACKS.items() for path in paths]


@pytest.fixture
def trace(tmp_path, monkeypatch):
  """The file that exists once anything of the attack was executed."""
  (tmp_path / 'evil.py').write_text(EVIL)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.chdir(tmp_path)
  monkeypatch.delitem(sys.modules, 'evil', raising=False)
  return tmp_path / 'trace'


def stored(folder, key, path, name='var/digits'):
  """The folder of a run whose config names a type at a key."""
  plain = workdir.to_json(ALL[name]())
  block = plain
  for part in key.split('.'):
    block = block.setdefault(part, {})
  block |= {'type': path, 'command': f'touch {folder.parent}/trace'}
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(plain))
  return folder


@pytest.mark.parametrize(
  'key, path',
  [
    ('sampler.logits_filter', 'process.choice.Choice'),  # a module that is gone
    ('feed', 'feeds.mask.Mask'),
    ('tokenizer', 'tokenizers.vq.VQ'),
    ('tokenizer', 'tokenizers.pyramid.PyramidVQ'),
    ('tokenizer', 'tokenizers.titok.LegacyTiTok'),
  ],
)
def test_a_run_of_another_version_is_refused_by_name(tmp_path, key, path):
  folder = stored(tmp_path / 'run', key, path)
  with pytest.raises(ConfigError) as error:
    load_run(folder)
  said = str(error.value)
  assert f'config.{key}.type={path!r}: this version of arvision has no' in said
  assert '--allow' not in said


def test_the_trace_works(trace):
  import evil

  assert trace.exists()
  trace.unlink()
  evil.call()
  assert trace.exists()


@pytest.mark.parametrize(('key', 'path'), CASES)
def test_a_run_that_names_no_part_is_refused(tmp_path, trace, key, path):
  folder = stored(tmp_path / 'run', key, path)
  with pytest.raises(ConfigError) as error:
    load_run(folder)
  assert f'config.{key}.type=' in str(error.value)
  assert str(folder / 'config.json') in str(error.value)
  assert '\n' not in str(error.value)
  assert not trace.exists() and 'evil' not in sys.modules


def test_types_in_lists_are_looked_at(tmp_path, trace):
  plain = {'sampler': {'counts': [[{'type': 'evil.Part'}]]}}
  with pytest.raises(ConfigError, match=r'sampler\.counts\.type='):
    trust.check(plain, 'a file')
  with pytest.raises(ConfigError) as error:
    trust.check({'a\nb\x1b': {'type': 'evil.Part\n'}}, 'a file')
  assert str(error.value).isprintable()
  deep = []
  for _ in range(5000):
    deep = [deep]
  with pytest.raises(ConfigError, match='without end'):
    trust.check({'sampler': deep}, 'a file')


COMMANDS = {
  'sample': [],
  'eval': [],
  'edit': ['--held_out=1'],
  'export': ['--output=out.pth'],
  'encode': ['--output=tokens'],
  'latents': [],
}


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('flags', [[], ['--allow=other'], ['--ema=raw']])
def test_commands_refuse_it_in_a_line(tmp_path, trace, capsys, command, flags):
  folder = stored(tmp_path / 'run', 'sampler', 'os.system')
  argv = [command, f'--workdir={folder}', *COMMANDS[command], *flags]
  assert main(argv) == 2
  error = capsys.readouterr().err
  assert error.startswith('arvision: error: ') and error.count('\n') == 1
  assert "config.sampler.type='os.system'" in error
  assert not trace.exists()
  assert sorted(os.listdir(folder)) == ['config.json']


@pytest.mark.parametrize('option', ['init_from', 'resume_from'])
def test_training_from_such_a_run_builds_nothing_of_it(tmp_path, trace, option):
  folder = stored(tmp_path / 'run', 'sampler', 'evil.Part')
  with pytest.raises((ConfigError, DataError)):
    toys.run(toys.config(2), tmp_path / 'new', **{option: str(folder)})
  assert not trace.exists()


@pytest.mark.parametrize('key', ['tokenizer', 'tokenizer.encoder'])
def test_such_a_tokenizer_builds_nothing(tmp_path, trace, capsys, key):
  folder = stored(tmp_path / 'run', key, 'evil.Part', 'var/digits_tokenizer')
  argv = ['train', '--config=var/digits', f'--workdir={tmp_path}/new']
  assert main([*argv, f'--config.frozen.tokenizer={folder}']) == 2
  assert 'evil.Part' in capsys.readouterr().err
  assert main([*argv[:2], f'--workdir={folder}']) == 2  # as its own workdir
  assert not trace.exists()


@dataclasses.dataclass(frozen=True)
class Run:
  config: ConfigDict
  data: CachedTokens
  allow: tuple[str, ...] = ()
  model: object = None


@pytest.mark.parametrize(
  'block',
  [
    {'type': 'evil.Part'},
    {'type': 'os.system', 'command': 'touch trace'},
    {'type': 'data.pipeline.Images', 'source': {'type': 'evil.call'}},
    {'type': 'samplers.entity.EntityAR'},
  ],
)
def test_encoded_tokens_name_parts_only(tmp_path, trace, block):
  spec = {'kind': 'tokens', 'version': 1, 'data': block}
  (tmp_path / 'spec.json').write_text(json.dumps(spec))
  run = Run(ConfigDict(), CachedTokens(str(tmp_path)))
  with pytest.raises(ConfigError, match=r'spec\.json: config\.data\.'):
    measure.images_of(run)
  assert not trace.exists()


def test_tokens_of_python_objects_are_refused(tmp_path):
  spec = {'kind': 'tokens', 'version': 1, 'dtype': 'object', 'tokens': [4]}
  spec |= {'splits': {'train': 1}, 'classes': ['a'], 'shape': [8, 8, 1]}
  (tmp_path / 'spec.json').write_text(json.dumps(spec))
  with pytest.raises(DataError, match="dtype='object'"):
    next(iter(CachedTokens(str(tmp_path)).train_pass(1)))


@pytest.mark.parametrize(
  ('depth', 'features'),
  [
    ('1.0.0', {'type': 'evil.Part', 'content': {}}),
    ('big/1.0.0', {'pythonClassName': 'evil.Part'}),
    (
      '1.0.0',
      {
        'pythonClassName': 'tensorflow_datasets.core.features.'
        'features_dict.FeaturesDict',
        'featuresDict': {'features': {'type': {'python_class_name': 'evil.P'}}},
      },
    ),
  ],
)
def test_prepared_data_name_features_of_tfds(tmp_path, trace, depth, features):
  folder = tmp_path / 'my_data' / depth
  folder.mkdir(parents=True)
  (folder / 'features.json').write_text(json.dumps(features))
  (folder / 'dataset_info.json').write_text('{"name": "my_data"}')
  with pytest.raises(DataError, match='names the feature class'):
    len(Tfds('MyData' if '/' in depth else 'my_data', data_dir=str(tmp_path)))
  assert not trace.exists()


@pytest.mark.parametrize(
  'builder', ['huggingface:x', 'a/../b', 'a/data_dir=x', '../a', 'a/c:1/d=e']
)
def test_only_names_of_datasets_open_tfds(builder):
  with pytest.raises(ConfigError, match='name/config:version'):
    len(Tfds(builder))


def test_every_config_may_be_stored(tmp_path):
  for name, make in ALL.items():
    trust.check(workdir.to_json(make()), name)
    assert not trust.foreign(make())


# ---------------------------------------------------------------- packages

PACKAGE = """
import dataclasses
import os
from subprocess import Popen

from arvision.layouts.base import Layout
from arvision.layouts.grid import raster


@dataclasses.dataclass(frozen=True)
class Mine:
  scale: float = 1.0


def make(scale=1.0):
  return Mine(scale)


def rows(height: int, width: int) -> Layout:
  return raster(height, width)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
  (tmp_path / 'mylab').mkdir()
  (tmp_path / 'mylab' / '__init__.py').touch()
  (tmp_path / 'mylab' / 'parts.py').write_text(PACKAGE)
  monkeypatch.syspath_prepend(tmp_path)
  yield
  for name in ('mylab', 'mylab.parts'):
    sys.modules.pop(name, None)


def check(key, path, allow=()):
  trust.check({key: {'type': path}}, 'config.json', allow)


def test_a_class_of_an_allowed_package_is_taken(package):
  with pytest.raises(ConfigError, match='add --allow=mylab '):
    check('sampler', 'mylab.parts.Mine')
  assert 'mylab' not in sys.modules
  check('sampler', 'mylab.parts.Mine', ('mylab',))
  check('sampler', 'mylab.parts.Mine', 'other,mylab')
  check('sampler', 'mylab.parts.Mine', ('mylab.parts',))
  check('layout', 'mylab.parts.rows', ('mylab',))  # a function that says Layout
  with pytest.raises(ConfigError, match='add --allow=mylab '):
    check('sampler', 'mylab.parts.Mine', ('my', 'mylab.part'))


@pytest.mark.parametrize(
  'path',
  [
    'mylab.parts.os.system',
    'mylab.parts.Popen',
    'mylab.parts.os',
    'mylab.parts.make',
    'mylab.parts.missing',
    'mylab.absent.Mine',
  ],
)
def test_what_an_allowed_package_does_not_define_is_refused(package, path):
  with pytest.raises(ConfigError):
    check('sampler', path, ('mylab',))


def test_a_function_is_taken_where_its_whole_path_is_named(package):
  with pytest.raises(ConfigError, match='--allow=mylab.parts.make'):
    check('optim', 'mylab.parts.make', ('mylab',))
  check('optim', 'mylab.parts.make', ('mylab.parts.make',))


def test_an_allowed_package_opens_no_other_room(package):
  with pytest.raises(ConfigError, match='no part belongs there'):
    check('mesh', 'mylab.parts.Mine', ('mylab',))
  with pytest.raises(ConfigError):
    check('sampler', 'commands.main.main', ('arvision', 'commands'))


@pytest.mark.parametrize('allow', ['os', 'subprocess.x', '../x', 'a b', '-'])
def test_what_is_no_package_of_parts_cannot_be_allowed(tmp_path, capsys, allow):
  assert main(['sample', f'--workdir={tmp_path}', f'--allow={allow}']) == 2
  assert f"--allow='{allow}'" in capsys.readouterr().err
