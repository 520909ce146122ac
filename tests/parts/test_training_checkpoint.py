"""What is saved, kept and read back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from arvision.build import ConfigError
from arvision.data.base import DataError
from arvision.tasks.base import TrainState
from arvision.training import workdir
from arvision.training.checkpoint import (
  Checkpoints,
  load_params,
  load_tree,
  load_weights,
  save_tree,
)

FACTS = {'seed': 1}


def state(size=4, value=1.0):
  params = {'net': {'kernel': jnp.full((size, size), value)}}
  ema = {d: {'net': {'kernel': jnp.full((size, size), float(d))}} for d in EMA}
  return TrainState(jnp.int32(0), params, (), ema)


EMA = ('0.9', '0.99')


def saved(folder, *steps, **options):
  made = Checkpoints(folder, FACTS, **options)
  for step in steps:
    metrics = {'loss': {1: 0.3, 2: 0.1, 3: 0.2, 4: 0.4}[step]}
    made.save(step, state(value=float(step)), {'at': step}, metrics)
  made.close()


def steps(folder):
  return sorted(int(p.name) for p in folder.iterdir())


def test_the_newest_are_kept(tmp_path):
  saved(tmp_path, 1, 2, 3, 4, keep=2)
  assert steps(tmp_path) == [3, 4]


def test_the_best_is_kept_besides(tmp_path):
  saved(tmp_path, 1, 2, 3, 4, keep=1, best='loss')
  assert steps(tmp_path) == [2, 4]


def test_a_best_metric_that_nobody_measures_does_no_harm(tmp_path):
  saved(tmp_path, 1, 2, 3, 4, keep=2, best='accuracy')
  assert {3, 4} <= set(steps(tmp_path))


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
  config.train.duration = ConfigDict({'epochs': 9})
  workdir.check_same(config, tmp_path)
  config.seed = 2
  with pytest.raises(ConfigError, match=r'config.seed: 1 there, 2 here'):
    workdir.check_same(config, tmp_path)
