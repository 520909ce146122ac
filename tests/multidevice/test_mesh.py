"""Meshes and rules, and that eight devices compute what one does."""

import sys
import types

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from arvision.errors import ConfigError
from arvision.parallel.host import Placement
from arvision.parallel.mesh import AXES, make_mesh, mesh_shape
from arvision.parallel.rules import Rules, nearest
from tests.multidevice import processes


def test_one_axis_takes_what_the_others_leave():
  assert mesh_shape({'data': -1, 'fsdp': 2, 'tensor': 2}, 8) == (1, 2, 2, 2, 1)
  assert mesh_shape({}, 1) == (1, 1, 1, 1, 1)


@pytest.mark.parametrize(
  ('sizes', 'said'),
  [
    ({'data': 3, 'fsdp': -1}, 'asks for a multiple of 3 devices, there are 8'),
    ({'data': 4}, 'has 4 devices, there are 8'),
    ({'data': -1, 'fsdp': -1}, 'only one axis may be -1'),
    ({'data': 0}, 'config.mesh.data: wanted 1 or more'),
    ({'date': 8}, "Did you mean 'data'"),
  ],
)
def test_a_mesh_that_does_not_fit_is_refused(sizes, said):
  with pytest.raises(ConfigError, match=said):
    mesh_shape(sizes, 8)


def test_the_compiler_handles_every_axis():
  # Under explicit axes the logical constraints of Flax fail.
  mesh = make_mesh({'data': -1}, jax.devices()[:1])
  assert mesh.axis_names == AXES
  assert all(t == jax.sharding.AxisType.Auto for t in mesh.axis_types)


def test_slices_must_be_told_of():
  devices = [types.SimpleNamespace(slice_index=i % 2) for i in range(4)]
  with pytest.raises(ConfigError, match='set config.mesh.slice=2'):
    make_mesh({'data': -1}, devices)


def test_names_become_mesh_axes():
  rules = Rules()
  assert rules.spec(('embed', None, 'heads', 'kv'), 'w') == P(
    'fsdp', None, 'tensor', None
  )
  assert rules.spec(('layers', 'embed', 'mlp'), 'w') == P(
    None, 'fsdp', 'tensor'
  )
  assert Rules(mlp='fsdp').spec(('mlp',), 'w') == P('fsdp')


@pytest.mark.parametrize(
  ('names', 'said'),
  [
    (('embed', 'conv_out'), "net/w: its axes 'embed' and 'conv_out' are both"),
    (('embed', 'conv_out'), "set config.rules.conv_out='tensor' or None"),
    (('heads', 'vocab'), "over the mesh axis 'tensor'"),
    (('hedas',), "Did you mean 'heads'"),
  ],
)
def test_wrong_names_are_refused(names, said):
  with pytest.raises(ConfigError, match=said):
    Rules().spec(names, 'net/w')


def test_a_rule_with_an_unknown_mesh_axis_is_refused():
  with pytest.raises(ConfigError, match=r'config.rules.embed=.fdsp.*fsdp'):
    Rules(embed='fdsp')


class FakeMesh:
  shape = {'slice': 1, 'data': 1, 'fsdp': 4, 'tensor': 2, 'sequence': 1}


@pytest.fixture
def place(monkeypatch):
  """The spec of an array, on a mesh that nobody here has."""
  monkeypatch.setattr(
    'arvision.parallel.rules.NamedSharding', lambda mesh, spec: spec
  )
  return lambda names, shape: Rules().sharding(FakeMesh(), names, shape, 'w')


def test_what_does_not_divide_is_whole_if_small(place):
  assert place(('embed', 'mlp'), (8, 6)) == P('fsdp', 'tensor')
  assert place(('vocab', 'embed'), (11, 8)) == P()


def test_what_does_not_divide_is_refused_if_large(place):
  with pytest.raises(ConfigError) as error:
    place(('vocab', 'embed'), (1001, 512))
  said = str(error.value)
  assert "w (1001, 512): its axis 'vocab' of 1001" in said
  assert '2 equal parts (config.mesh.tensor=2)' in said
  assert 'the nearest mesh that divides it is config.mesh.tensor=1.' in said


def test_the_nearest_mesh_divides_and_is_no_larger():
  assert nearest({'tensor': 16}, 12) == {'tensor': 12}
  assert nearest({'data': 4, 'fsdp': 8}, 24) == {'data': 3, 'fsdp': 8}
  assert nearest({'data': 4, 'fsdp': 8}, 7) == {'data': 1, 'fsdp': 7}


class FakePlacement(Placement):
  """A mesh of devices that belong to so many processes, in this order."""

  def __init__(self, processes=1, order=None, **sizes):
    shape = {**dict.fromkeys(AXES, 1), **sizes}
    count = int(np.prod(list(shape.values())))
    owners = [i * processes // count for i in order or range(count)]
    devices = [types.SimpleNamespace(process_index=p) for p in owners]
    grid = np.array(devices, object).reshape(list(shape.values()))
    self.mesh = types.SimpleNamespace(shape=shape, devices=grid)


@pytest.mark.parametrize(
  ('size', 'pieces', 'said'),
  [
    (12, 1, r'among 8 devices \(config.mesh.data=8\).* of 8 \(8 or 16\)'),
    (12, 1, 'nearest mesh that divides it is config.mesh.data=6$'),
    (4, 1, r'a multiple of 8 \(8\)'),
    (
      24,
      2,
      r'config.optim.accumulate=2; make it a multiple of 16 \(16 or 32\)',
    ),
  ],
)
def test_a_batch_that_the_mesh_does_not_divide_is_refused(size, pieces, said):
  with pytest.raises(ConfigError, match=said):
    FakePlacement(data=8).check_batch(size, pieces)
  FakePlacement(data=8).check_batch(16, pieces)


@pytest.mark.parametrize(
  ('count', 'sizes', 'shares'),
  [
    (2, {'data': 2, 'fsdp': 4}, [(0, 2), (1, 2)]),
    (4, {'fsdp': 8}, [(0, 4), (1, 4), (2, 4), (3, 4)]),
    # Both processes hold all rows.
    (2, {'tensor': 8}, [(0, 1), (0, 1)]),
    (4, {'data': 2, 'tensor': 4}, [(0, 2), (0, 2), (1, 2), (1, 2)]),
    (2, {'data': 4, 'order': [0, 2, 1, 3]}, [(0, 2), (1, 2)]),
  ],
)
def test_processes_make_the_rows_that_their_devices_hold(
  count, sizes, shares, monkeypatch
):
  placement = FakePlacement(count, **sizes)
  for index, share in enumerate(shares):
    monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
    assert placement.share() == share


def test_rows_that_processes_cannot_share_evenly_are_refused():
  # The middle one of three rows would lie in both processes.
  with pytest.raises(ConfigError, match='3 parts of a batch .* 2 processes'):
    FakePlacement(2, data=3, tensor=2).share()


def test_moments_lie_where_their_parameters_do():
  mesh = make_mesh({'data': -1}, jax.devices()[:1])
  box = nn.LogicallyPartitioned(np.zeros((4, 6)), ('embed', 'mlp'))
  found = Rules().shardings(mesh, {'mu': {'w': box}, 'count': np.zeros(())})
  assert found['mu']['w'].spec == P('fsdp', 'tensor')
  assert found['count'].spec == P()


# The same five steps in a process with eight fake devices, on several meshes.
_PROGRAM = """
import json, sys
import jax
from tests.parts import training_toys as toys
meshes = [{'data': 8}, {'data': 2, 'fsdp': 2, 'tensor': 2}, {'fsdp': -1}]
for i, mesh in enumerate(meshes):
  folder = f'{sys.argv[1]}/{i}'
  config = toys.config(8, mesh=mesh, evals__every={'steps': 4})
  # Stops and goes on, on the next mesh.
  toys.run(config, folder, stop_at=4)
  config.mesh = meshes[i - 1]
  toys.run(config, folder)
assert jax.device_count() == 8
"""


def test_eight_devices_train_as_one_does(tmp_path):
  from tests.parts import training_toys as toys

  toys.run(toys.config(8, evals__every={'steps': 4}), tmp_path / 'one')
  program = [sys.executable, '-c', _PROGRAM, str(tmp_path)]
  processes.run(program, count=1, devices=8)
  one = toys.arrays(tmp_path / 'one')
  for i in range(3):
    many = toys.arrays(tmp_path / str(i))
    assert one.keys() == many.keys()
    for name in one:
      np.testing.assert_allclose(
        many[name], one[name], rtol=1e-4, atol=1e-6, err_msg=name
      )


_SHARDED = """
import jax
from arvision.parallel.host import Placement
from arvision.parallel.mesh import make_mesh
from arvision.training import start
from arvision.training.optim import Optimizer
from arvision.training.schedule import Clock
from tests.parts import training_toys as toys
tx = Optimizer(0.1, weight_decay=0.1).make(Clock(5, 16, 96))
task = toys.Task(tx=tx)
place = Placement(make_mesh({'data': 1, 'fsdp': 4, 'tensor': 2}))
def check(*trees):
  for tree in trees:
    shards = tree['hidden']['kernel'].addressable_shards
    assert len(shards) == 8
    assert {s.data.shape for s in shards} == {(4, 4)}, tree
state = start.StateInit(task, place, 0).fresh()
check(state.params, state.ema['0.9'], state.opt_state[0].mu)
batch = place.put_batch(next(toys.Data().train(16, 0)))
assert {s.data.shape for s in batch['label'].addressable_shards} == {(4,)}
traced, names = start.trace_step(task, place, state, {}, batch)
step, _ = start.compile_step(traced, place)
new, metrics = step(state, {}, batch)
check(new.params, new.ema['0.9'], new.opt_state[0].nu)
assert state.params['hidden']['kernel'].is_deleted()
text = step.as_text()
assert 'all-gather' in text or 'all-reduce' in text
print('sharded')
"""


def test_state_is_spread_and_given_up():
  program = [sys.executable, '-c', _SHARDED]
  (text,) = processes.run(program, count=1, devices=8)
  assert 'sharded' in text


_PROCESS = """
import sys
from arvision.parallel import host
host.initialize()
import jax
from tests.parts import training_toys as toys
assert (jax.process_count(), jax.device_count()) == (2, 4)
config = toys.config(8, mesh={'data': 2, 'fsdp': 2})
toys.run(config, sys.argv[1], stop_at=5)
# Now both processes hold every row.
config.mesh = {'tensor': 4}
toys.run(config, sys.argv[1])
"""


def test_two_processes_train_as_one_does(tmp_path):
  from tests.parts import training_toys as toys

  program = [sys.executable, '-c', _PROCESS, str(tmp_path / 'two')]
  processes.run(program, count=2, devices=2)
  toys.run(toys.config(8), tmp_path / 'one')
  one, two = toys.arrays(tmp_path / 'one'), toys.arrays(tmp_path / 'two')
  for name in one:
    np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-6)
