"""Copies of the state in memory, as far as one process goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from arvision.errors import ConfigError
from arvision.training import peers

FACTS = {'seed': 1}


def test_neighbours_are_on_other_hosts():
  assert peers.neighbour('aaaa') == 1
  assert peers.neighbour('abcd') == 1
  assert peers.neighbour('aabb') == 2
  with pytest.raises(ConfigError, match='unevenly'):
    peers.neighbour('aab')


def test_one_process_is_refused(tmp_path):
  with pytest.raises(ConfigError, match='got 1 process, wanted 2 or more'):
    peers.Memory(ConfigDict(), tmp_path, {})


def test_the_newest_intact_copy_counts(tmp_path, monkeypatch):
  monkeypatch.setattr(peers, 'check_processes', lambda: None)
  folder, run = tmp_path / 'memory', tmp_path / 'run'
  folder.mkdir()
  run.mkdir()
  config = ConfigDict({'checkpoint': {'memory': {'folder': str(folder)}}})
  values = np.arange(6, dtype=np.float32).reshape(2, 3)
  state = {'params': {'a': jnp.asarray(values)}, 'step': jnp.int32(0)}

  def restored(facts=FACTS, after=0):
    memory, places = peers.Memory(config, run, state), []
    found = memory.restore(state, places.append, facts, after)
    return found and (*found, *places, memory.worked)

  memory = peers.Memory(config, run, state)
  assert restored() is None
  assert '0.0 MB a process' in memory.start()
  for step in (1, 2, 3):
    new = {'params': {'a': values + step}, 'step': np.int32(step)}
    new = jax.tree.map(jnp.asarray, new)
    memory.save(step, new, {'next': step}, FACTS, float(step))
  found, step, place, worked = restored()
  assert (step, place, worked) == (3, {'next': 3}, 3.0)
  assert np.array_equal(found['params']['a'], values + 3) and found['step'] == 3
  assert restored(facts={'seed': 2}) is None and restored(after=3) is None
  (file,) = folder.glob('*/0/3/kept')
  data = bytearray(file.read_bytes())
  data[-1] ^= 1
  file.write_bytes(data)
  assert restored()[1] == 2
  # What others could have written is not read.
  file.parents[1].chmod(0o755)
  assert restored() is None
  file.parents[1].chmod(0o700)
  memory.remove()
  assert not [*folder.iterdir()] and restored() is None
  with pytest.raises(ConfigError, match='there is no such folder'):
    config.checkpoint.memory.folder = str(tmp_path / 'none')
    peers.Memory(config, run, state)
