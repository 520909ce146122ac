"""Families of the published papers take the same steps on every mesh."""

import json
import sys

import numpy as np
import pytest

from tests.multidevice import processes
from tests.multidevice.families import BATCH, FAMILIES

MESHES = {
  'data': {'data': 8},
  'fsdp': {'fsdp': 8},
  'fsdp-tensor': {'fsdp': 4, 'tensor': 2},
  'mixed': {'data': 2, 'fsdp': 2, 'tensor': 2},
  'sequence': {'data': 2, 'sequence': 4},
}

_PROGRAM = """
import dataclasses, json, sys
import jax
from arvision.plan import collectives
from tests.multidevice.families import Family
jax.config.update('jax_default_matmul_precision', 'highest')
assert jax.device_count() == 8
names, meshes, path = json.loads(sys.argv[1])
out = {}
for name in names:
  family = Family(name)
  out[name] = {}
  for mesh, sizes in {'one': {'data': 1}, **meshes}.items():
    metrics, step, state = family.train(sizes)
    out[name][mesh] = {
      'metrics': metrics,
      'collectives': [
        {**dataclasses.asdict(c), 'axes': c.axes(state.step.sharding.mesh.shape)}
        for c in collectives.read(step.as_text())
      ],
      'shapes': [x.shape for x in jax.tree.leaves(state.params)],
      'parts': [
        x.addressable_shards[0].data.shape for x in jax.tree.leaves(state.params)
      ],
    }
with open(path, 'w') as file:
  json.dump(out, file)
"""


def _run(folder, names, meshes):
  path = folder / 'found.json'
  given = json.dumps([names, meshes, str(path)])
  program = [sys.executable, '-c', _PROGRAM, given]
  processes.run(program, count=1, devices=8)
  return json.loads(path.read_text())


def _same(found):
  one = found['one']['metrics']
  # The steps must have moved the model, or equal losses would say little.
  assert abs(one['loss'][2] - one['loss'][0]) > 1e-4
  for mesh, other in found.items():
    for name in ('loss', 'gradient_norm'):
      np.testing.assert_allclose(
        other['metrics'][name], one[name], rtol=1e-5, err_msg=f'{mesh} {name}'
      )


def _matrices(found):
  """Sizes of the sharded matrices, of all layers together and of one."""
  cut = [
    shape
    for shape, part in zip(found['shapes'], found['parts'])
    if shape != part
  ]
  sizes = {tuple(sorted(s)) for shape in cut for s in (shape, shape[1:])}
  # Vectors and biases of few heads are kept whole, and look like none of these.
  return {s for s in sizes if np.prod(s) >= 512}


def _all_reduced(found):
  """Whether all-reduced arrays of a parameter's size are only read in slices."""
  large = _matrices(found)
  return [
    (c['name'], dims, sliced)
    for c in found['collectives']
    if c['kind'] == 'all-reduce'
    for (_, dims), sliced in zip(c['shapes'], c['sliced'])
    if tuple(sorted(dims)) in large
  ]


def _collectives(found):
  assert not found['one']['collectives']
  for mesh in {'fsdp', 'mixed', 'fsdp-tensor'} & found.keys():
    kinds = {c['kind'] for c in found[mesh]['collectives']}
    assert 'all-gather' in kinds, mesh
    # A CPU has no reduce-scatter, see docs/parallelism.md.
    assert any(
      'fsdp' in c['axes'] and any(c['sliced'])
      for c in found[mesh]['collectives']
    ), mesh
  if 'data' in found:
    # But for numbers of which an example has one (MAR's groups share a rate),
    # examples are not told of one another.
    others = [
      c for c in found['data']['collectives'] if c['kind'] != 'all-reduce'
    ]
    sizes = [np.prod(dims) for c in others for _, dims in c['shapes']]
    assert all(size <= BATCH for size in sizes), others
  if 'sequence' in found:
    gathered = [
      c
      for c in found['sequence']['collectives']
      if c['kind'] == 'all-gather' and 'sequence' in c['axes']
    ]
    # The keys and values of every layer.
    assert any(c['times'] > 1 for c in gathered)
  if 'fsdp' in found:
    assert _matrices(found['fsdp'])
    reduced = _all_reduced(found['fsdp'])
    assert reduced
    whole = [x for x in reduced if not x[2]]
    assert not whole, whole


@pytest.fixture(scope='module')
def var(tmp_path_factory):
  few = {k: MESHES[k] for k in ('fsdp', 'mixed', 'sequence')}
  return _run(tmp_path_factory.mktemp('var'), ['var'], few)['var']


def test_var_takes_the_same_steps_on_every_mesh(var):
  _same(var)


def test_var_sends_what_its_mesh_asks_for(var):
  _collectives(var)


@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_every_family_on_every_mesh(name, tmp_path):
  found = _run(tmp_path, [name], MESHES)[name]
  _same(found)
  _collectives(found)
