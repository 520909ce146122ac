"""What is saved, kept and read back."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from arvision.errors import ConfigError, DataError
from arvision.tasks.base import TrainState
from arvision.training import differences, digests, workdir
from arvision.training.checkpoint import Checkpoints
from arvision.training.kept import read_meta
from arvision.training.trees import load_tree, save_tree
from arvision.training.weights import load_params, load_weights

FACTS = {'seed': 1}


def state(size=4, value=1.0):
  params = {'net': {'kernel': jnp.full((size, size), value)}}
  ema = {d: {'net': {'kernel': jnp.full((size, size), float(d))}} for d in EMA}
  return TrainState(jnp.int32(0), params, (), ema)


EMA = ('0.9', '0.99')


LOSSES = {1: 0.3, 2: 0.1, 3: 0.2, 4: 0.4}


def saved(folder, *steps, losses=LOSSES, **options):
  """Saves steps; those without a loss were not measured."""
  made = Checkpoints(folder, FACTS, **options)
  for step in steps:
    figures = {'loss': losses[step]} if step in losses else None
    made.save(step, state(value=float(step)), {'at': step}, figures)
  made.close()


def steps(folder):
  return sorted(int(p.name) for p in folder.iterdir())


def test_the_newest_are_kept(tmp_path):
  saved(tmp_path, 1, 2, 3, 4, keep=2)
  assert steps(tmp_path) == [3, 4]


def test_the_best_is_kept_besides(tmp_path):
  saved(tmp_path, 1, 2, 3, 4, keep=1, best='loss')
  assert steps(tmp_path) == [2, 4]


def test_the_first_of_every_period_is_kept_for_good(tmp_path):
  """Also where no save falls on the period, and after a restart."""
  saved(tmp_path, 2, 4, 6, losses={}, keep=1, every=5)
  assert steps(tmp_path) == [6]
  saved(tmp_path, 9, 12, 14, losses={}, keep=1, every=5)
  assert steps(tmp_path) == [6, 12, 14]


def test_a_best_metric_that_nobody_measures_does_no_harm(tmp_path):
  saved(tmp_path, 1, 2, 3, 4, keep=2, best='accuracy')
  assert steps(tmp_path) == [3, 4]


@pytest.mark.parametrize(
  ('best', 'losses', 'kept'),
  [
    ('loss', {2: 0.1}, [2, 4]),  # 3 and 4 were not measured
    ('loss', {1: 0.3, 2: np.nan, 3: np.inf, 4: 0.4}, [1, 4]),
    ('-loss', {1: 0.3, 2: 0.5, 3: 0.2}, [2, 4]),  # the highest
    ('loss', {1: 0.2, 2: 0.2, 3: 0.2}, [1, 4]),  # the first of equals
    ('loss', {}, [4]),
  ],
)
def test_a_figure_belongs_to_its_step(tmp_path, best, losses, kept):
  saved(tmp_path, 1, 2, losses=losses, keep=1, best=best)
  # What was measured is known again.
  saved(tmp_path, 3, losses=losses, keep=1, best=best)
  saved(tmp_path, 4, losses=losses, keep=1, best=best)
  assert steps(tmp_path) == kept


def test_figures_are_not_saved_again_with_later_steps(tmp_path):
  saved(tmp_path, 1, 2, losses={1: 0.3}, keep=2)
  assert [read_meta(tmp_path / n)['figures'] for n in '12'] == [
    {'loss': 0.3},
    {},
  ]


def test_only_what_is_better_improves(tmp_path):
  saved(tmp_path, 1, 2, keep=1, best='loss')
  made = Checkpoints(tmp_path, FACTS, keep=1, best='loss')
  assert made.improves({'loss': 0.09}) and not made.improves({'loss': 0.1})
  assert not made.improves({'loss': np.nan}) and not made.improves({})
  made.close()


def restored(folder, facts=FACTS):
  """(step, position) of what is restored."""
  position = []

  def set_position(state):
    position.append(state['at'] + 0)

  made = Checkpoints(folder, facts)
  try:
    found = made.restore(state(), set_position)
  finally:
    made.close()
  return found[1], position[-1]


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """Checkpoints 1 and 2."""
  folder = tmp_path_factory.mktemp('two')
  saved(folder / 'checkpoints', 1, 2)
  return folder


@pytest.fixture
def copied(two, tmp_path):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  workdir.save_config(tmp_path, ConfigDict())
  return tmp_path / 'checkpoints'


META = {'step': 2, 'data': {'at': 2}, 'facts': FACTS, 'figures': {}}


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'[1, 2]',
    b'"\xff"',
    b'[' * 100_000,
    json.dumps({**META, 'step': 3}).encode(),
    json.dumps({k: v for k, v in META.items() if k != 'data'}).encode(),
    json.dumps({**META, 'data': None}).encode(),
    json.dumps({**META, 'data': {'at': 'x'}}).encode(),
    json.dumps({**META, 'data': [{'at': 2}]}).encode(),
    json.dumps({**META, 'facts': {}}).encode(),
    json.dumps({**META, 'facts': [1]}).encode(),
    json.dumps({**META, 'facts': {'seed': '1'}}).encode(),
  ],
)
def test_odd_facts_are_damage(copied, content):
  (copied / '2' / 'meta' / 'metadata').write_bytes(content)
  (copied / '2' / 'meta' / digests.FILE).unlink()
  assert restored(copied) == (1, 1)
  assert steps(copied) == [1]


def test_odd_figures_are_none(copied):
  content = json.dumps({**META, 'figures': {'loss': 'x'}})
  (copied / '2' / 'meta' / 'metadata').write_text(content)
  (copied / '2' / 'meta' / digests.FILE).unlink()
  made = Checkpoints(copied, FACTS, best='loss')
  assert made.improves({'loss': 0.2}) and not made.improves({'loss': 0.4})
  made.close()
  assert restored(copied) == (2, 2)


def test_other_facts_are_refused_and_not_damage(copied):
  with pytest.raises(ConfigError, match='was made with config.seed=1'):
    restored(copied, {'seed': 5})
  assert steps(copied) == [1, 2]


def flip(file, bit):
  content = bytearray(file.read_bytes())
  content[bit // 8 % len(content)] ^= 1 << bit % 8
  file.write_bytes(content)


def files(folder):
  """All but what Orbax writes about a save itself."""
  found = sorted(p for p in folder.rglob('*') if p.is_file())
  about = ('commit_success.txt', '_CHECKPOINT_METADATA')
  return [p for p in found if p.name not in about]


def test_no_flipped_bit_is_loaded(copied):
  """Of arrays, of what describes them and of the JSON, one file at a time."""
  folder = copied / '2'
  paths = files(folder)
  assert len(paths) > 6
  for i, path in enumerate(paths):
    content = path.read_bytes()
    flip(path, 4 * len(content) + i)
    made = Checkpoints(copied, FACTS)
    found, problem = made._read(2, state())
    made.close()
    assert found is None and problem, path
    path.write_bytes(content)
  assert restored(copied) == (2, 2)


def test_a_run_is_used_without_its_damaged_checkpoint(copied):
  largest = max(files(copied / '2'), key=lambda p: p.stat().st_size)
  flip(largest, 4 * largest.stat().st_size)
  assert load_params(copied.parent)[2] == 1
  with pytest.raises(DataError, match='checkpoint 2: .*not as it was written'):
    load_params(copied.parent, step=2)
  assert steps(copied) == [1, 2]  # reading moves nothing


def test_checkpoints_without_digests_are_read(copied):
  for path in copied.rglob(digests.FILE):
    path.unlink()
  assert restored(copied) == (2, 2)
  assert load_params(copied.parent)[2] == 2


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_used(tmp_path, value):
  workdir.save_config(tmp_path, ConfigDict())
  folder = tmp_path / 'checkpoints'
  saved(folder, 1)
  made = Checkpoints(folder, FACTS)
  bad = state()
  bad.ema['0.99']['net']['kernel'] = jnp.full((4, 4), value)
  made.save(2, bad, {'at': 2})  # as older versions did
  made.close()
  with pytest.raises(DataError, match=r'not finite \(net/kernel\).*\[2, 1\]'):
    load_params(tmp_path)
  assert load_params(tmp_path, '0.9')[2] == 2
  assert load_params(tmp_path, step=1)[2] == 1
  assert restored(folder) == (1, 1)


def test_the_best_is_found_by_its_figure(tmp_path):
  config = ConfigDict({'checkpoint': {'best': 'loss'}})
  workdir.save_config(tmp_path, config)
  saved(tmp_path / 'checkpoints', 1, 2, 3, 4, keep=1, best='loss')
  assert load_params(tmp_path, step='best')[2] == 2
  assert load_params(tmp_path)[2] == 4
  workdir.save_config(tmp_path, ConfigDict())
  with pytest.raises(ConfigError, match="config.checkpoint.best=''"):
    load_params(tmp_path, step='best')


def test_trees_notice_a_flipped_bit(tmp_path):
  folder = tmp_path / 'tree'
  save_tree(folder, {'a': {'x': np.arange(600.0, dtype=np.float32)}})
  for path in files(folder):
    content = path.read_bytes()
    flip(path, 4 * len(content))
    with pytest.raises(DataError, match='is damaged'):
      load_tree(folder)
    path.write_bytes(content)
  assert load_tree(folder)['a']['x'][-1] == 599


def test_a_save_outlives_the_donation_of_its_arrays(tmp_path):
  made = Checkpoints(tmp_path, FACTS)
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  now = step(state(1200))
  made.save(1, now, None)
  for _ in range(20):
    now = step(now)
  jax.block_until_ready(now)
  made.close()
  found = load_tree(tmp_path / '1' / 'state')
  assert (found['params']['net']['kernel'] == 2).all()


def test_parameters_are_read_alone(tmp_path):
  workdir.save_config(tmp_path, ConfigDict({'size': (8, 8)}))
  saved(tmp_path / 'checkpoints', 1, 2)
  config, params, step = load_params(tmp_path)
  assert config.size == (8, 8) and step == 2
  assert isinstance(params['net']['kernel'], np.ndarray)
  assert params['net']['kernel'][0, 0] == np.float32(0.99)
  assert load_params(tmp_path, '0.9')[1]['net']['kernel'][0, 0] == np.float32(
    0.9
  )
  named = [load_weights(tmp_path, ema).ema for ema in (None, '0.9', 'raw')]
  assert named == ['0.99', '0.9', 'raw']
  _, params, step = load_params(tmp_path, 'raw', step=1)
  assert step == 1 and params['net']['kernel'][0, 0] == 1.0
  with pytest.raises(ConfigError, match='There are: 0.9, 0.99, raw'):
    load_params(tmp_path, '0.999')
  with pytest.raises(ConfigError, match=r'it has \[2, 1\]'):
    load_params(tmp_path, step=3)


def test_a_folder_without_a_run_is_named(tmp_path):
  with pytest.raises(ConfigError, match='is not the folder of a run'):
    load_params(tmp_path)
  workdir.save_config(tmp_path, ConfigDict())
  with pytest.raises(DataError, match='has no checkpoint yet'):
    load_params(tmp_path)


def test_trees_and_configs_survive_the_way_to_disk(tmp_path):
  tree = {'a': {'x': np.arange(6.0, dtype=np.float32).reshape(2, 3)}}
  save_tree(tmp_path / 'tree', tree)
  found = load_tree(tmp_path / 'tree')
  np.testing.assert_array_equal(found['a']['x'], tree['a']['x'])
  config = ConfigDict({'a': {'b': (1, (2, 3)), 'c': None}, 'd': 'x'})
  found = workdir.from_json(workdir.to_json(config))
  assert found.to_dict() == config.to_dict() and found.is_locked


def test_only_harmless_keys_may_change(tmp_path):
  config = ConfigDict({'train': {'duration': {'steps': 3}}, 'seed': 1})
  workdir.save_config(tmp_path, config)
  (tmp_path / 'checkpoints' / '3').mkdir(parents=True)
  config.train.duration = ConfigDict({'epochs': 9})
  differences.check_same(config, tmp_path)
  config.seed = 2
  with pytest.raises(ConfigError, match=r'config.seed: 1 there, 2 here'):
    differences.check_same(config, tmp_path)
