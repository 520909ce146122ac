"""Parts of a user's own package, beside the config that names them."""

import json
import subprocess
import sys

import jax
import optax
import pytest

from arvision.build import build
from arvision.commands import common
from arvision.commands.main import main
from arvision.errors import ConfigError
from arvision.parallel.host import Placement
from arvision.parallel.mesh import make_mesh
from arvision.parallel.rules import Rules
from arvision.runs.trained import load_run
from arvision.tasks import assemble
from arvision.training import differences, start, workdir
from arvision.training.schedule import run_clock
from tests.configs import ALL
from tests.parts import training_toys as toys

PARTS = """
import dataclasses

import numpy as np

from arvision.data.digits import Digits
from arvision.samplers.entity import EntityAR


@dataclasses.dataclass(frozen=True, eq=False)
class Negatives(Digits):
  most: int = 255

  def __getitem__(self, i):
    example = super().__getitem__(i)
    return {**example, 'image': np.minimum(255 - example['image'], self.most)}


@dataclasses.dataclass(frozen=True)
class Mine(EntityAR):
  pass
"""
CONFIG = """
from ml_collections import ConfigDict

from arvision.configs.var import digits_tokenizer


def get_config():
  config = digits_tokenizer.get_config().unlock()
  config.data.source = ConfigDict({'type': 'mylab.parts.Negatives'})
  return config
"""
SCRIPT = """
from arvision.build import build
from arvision.commands import common

if __name__ == '__main__':
  config = common.load_config(
    'lab/my_config.py', ['data.workers=1', 'data.source.most=254']
  )
  batches = build(config.data, 'data').train(4, seed=0)
  print(next(batches)['image'].max())
  batches.close()
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
  """A folder with a config and a package beside it."""
  monkeypatch.setattr(sys, 'path', [*sys.path])
  folder = tmp_path / 'lab'
  (folder / 'mylab').mkdir(parents=True)
  (folder / 'mylab' / '__init__.py').touch()
  (folder / 'mylab' / 'parts.py').write_text(PARTS)
  (folder / 'my_config.py').write_text(CONFIG)
  yield folder
  for name in ('mylab', 'mylab.parts'):
    sys.modules.pop(name, None)


def test_a_package_beside_the_config_is_found(lab):
  # None of these may stand before what is installed.
  for name in ('numpy', 'arvision', 'flax'):
    (lab / name).mkdir()
    (lab / name / '__init__.py').write_text('raise SystemExit')
  before = [*sys.path]
  config = common.load_config(f'{lab}/my_config.py', ['data.source.most=200'])
  assert sys.path == [*before, str(lab)]
  source = build(config.data, 'data').source
  assert type(source).__name__ == 'Negatives' and source.most == 200
  assert sys.modules['mylab.parts'].np is sys.modules['numpy']
  common.load_config(f'{lab}/my_config.py')
  assert sys.path.count(str(lab)) == 1


def test_configs_that_are_installed_open_no_folder():
  before = [*sys.path]
  common.load_config('var/digits')
  common.load_config('configs/var/digits.py')
  assert sys.path == before


def test_own_parts_work_in_worker_processes_of_a_script(lab):
  (lab.parent / 'script.py').write_text(SCRIPT)
  done = subprocess.run(
    [sys.executable, 'script.py'],
    cwd=lab.parent,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  # 254 of 255, in [-1, 1].
  assert float(done.stdout) == pytest.approx(254 / 127.5 - 1)


@pytest.fixture
def own_run(lab):
  """A folder as a run with an own source leaves it, but for its weights."""
  folder = lab.parent / 'run'
  folder.mkdir()
  config = common.load_config(f'{lab}/my_config.py')
  workdir.save_config(folder, config)
  (folder / 'log.jsonl').write_text('{"step": 1}\n')
  for name in ('mylab', 'mylab.parts'):
    sys.modules.pop(name, None)
  return folder


def test_a_run_with_own_parts_says_what_to_allow(own_run, capsys):
  assert main(['encode', f'--workdir={own_run}', '--output=x']) == 2
  error = capsys.readouterr().err
  assert '--allow=mylab ' in error and error.count('\n') == 1
  assert 'mylab' not in sys.modules
  with pytest.raises(ConfigError, match=r"allow=\('mylab',\)"):
    load_run(own_run)


def past_the_check(capsys):
  """Whether a command came as far as to look for weights."""
  return 'no checkpoint yet' in capsys.readouterr().err


def test_a_run_with_own_parts_opens_where_they_are_allowed(
  lab, own_run, capsys, monkeypatch
):
  argv = ['encode', f'--workdir={own_run}', '--output=x']
  sys.path.remove(str(lab))
  assert main([*argv, '--allow=mylab']) == 2
  assert "no module 'mylab.parts'" in capsys.readouterr().err
  # The current folder is looked at too,
  monkeypatch.chdir(lab)
  assert main([*argv, '--allow=mylab']) == 2 and past_the_check(capsys)
  # and what the user's own config names needs no flag.
  assert main([*argv, f'--config={lab}/my_config.py']) == 2
  assert past_the_check(capsys)


def test_a_run_with_own_parts_is_resumed_by_the_same_command(lab, own_run):
  config = common.load_config(f'{lab}/my_config.py')
  differences.check_same(config, own_run)
  more = common.load_config(f'{lab}/my_config.py', ['data.source.most=255'])
  differences.check_same(more, own_run)
  other = common.load_config(f'{lab}/my_config.py', ['data.source.most=254'])
  with pytest.raises(ConfigError, match='most: 255 there, 254 here'):
    differences.check_same(other, own_run)


def test_an_own_package_that_fails_is_said_in_a_line(lab):
  (lab / 'mylab' / 'parts.py').write_text('\nraise OSError("gone\\naway")')
  with pytest.raises(ConfigError) as error:
    common.load_config(f'{lab}/my_config.py', ['data.source.most=2'])
  said = str(error.value)
  assert 'parts.py, line 2: OSError: gone away' in said and '\n' not in said


# --------------------------------------------------------------- optimizers


def two(first, second):
  """One optimizer for kernels and one for the rest."""
  named = lambda path, _: 'a' if 'kernel' in str(path) else 'b'
  return optax.multi_transform(
    {'a': first, 'b': second},
    lambda params: jax.tree_util.tree_map_with_path(named, params),
  )


@pytest.mark.parametrize(
  'tx',
  [
    two(optax.adam(0.1), optax.sgd(0.1, momentum=0.9)),
    optax.masked(
      optax.adam(0.1), lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)
    ),
    optax.adafactor(0.1, min_dim_size_to_factor=4),
  ],
  ids=['multi_transform', 'masked', 'factored'],
)
def test_optimizers_that_keep_less_than_all_parameters(tx):
  placement = Placement(make_mesh({'data': -1}), Rules())
  task = toys.Task(tx=tx)
  origin = start.StateInit(task, placement, seed=0)
  state = origin.fresh()
  kinds = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert kinds(state) == kinds(origin.abstract)
  batch = next(toys.Data().train(16, 0))
  batch = {key: batch[key] for key in ('image', 'label')}
  after, metrics = jax.jit(task.step)(state, {}, batch)
  assert kinds(after.opt_state) == kinds(state.opt_state)
  moved = jax.tree.map(
    lambda a, b: bool((a != b).any()), after.params, state.params
  )
  assert all(jax.tree.leaves(moved))


def test_defaults_need_not_be_stated(tmp_path):
  """What the library reads of a block may be left to the part's default."""
  config = ALL['var/digits_tokenizer']().copy_and_resolve_references().unlock()
  for block, name in (('optim', 'accumulate'), ('data', 'channels')):
    del config[block][name]
  config.data.channels = 1
  del config.data['batch_size']
  assert run_clock(config, 1000).batch_size == 128
  task = assemble.make_task(config, assemble.make_data(config))
  assert task.accumulate == 1


def test_an_own_sampler_is_built_where_it_is_allowed(lab):
  plain = workdir.to_json(ALL['var/digits']())
  plain['sampler'] = {**plain['sampler'], 'type': 'mylab.parts.Mine'}
  (lab / 'config.json').write_text(json.dumps(plain))
  common.find_packages_in(lab)
  config = workdir.load_config(lab, allow=('mylab',))
  assert type(build(config.sampler, 'sampler')).__name__ == 'Mine'
