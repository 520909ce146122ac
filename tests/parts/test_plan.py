"""Plans: arithmetic, topologies, cache keys and errors; all without libtpu."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from arvision.commands import common
from arvision.commands import plan as command
from arvision.errors import ConfigError
from arvision.metrics import Term
from arvision.parallel.host import Placement
from arvision.parallel.mesh import AXES, make_mesh
from arvision.plan import answer, flops, programs, report, topology, traffic
from arvision.plan.chips import CHIPS
from arvision.plan.predict import predict
from arvision.tasks.base import Objective, accumulate

ROOT = pathlib.Path(__file__).parents[2]


def test_topologies_are_parsed():
  found = topology.parse('v5p:4x4x8')
  assert (found.kind, found.shape, found.devices) == ('v5p', (4, 4, 8), 128)
  assert str(found) == 'v5p:4x4x8'
  # JAX sees two devices of such a chip, each with half of its memory.
  found = topology.parse('tpu7x:2x2x1')
  assert found.devices == 8
  assert found.chip.hbm == CHIPS['tpu7x'].hbm / 2


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('v5x:4x4', "Did you mean 'v5p'|'v5e'.*There are: tpu7x, v5e, v5p, v6e"),
    ('v5e', 'wanted the chips along every axis, like v5e:4x4'),
    ('v5e:4x0', 'like v5e:4x4'),
    ('v5p:4x4', 'v5p slices have 3 axes, got 2'),
  ],
)
def test_wrong_topologies_are_refused(text, said):
  with pytest.raises(ConfigError, match=said):
    topology.parse(text)


def test_without_the_compiler_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ConfigError, match=r"pip install 'arvision\[plan\]'"):
    topology.prepare(topology.parse('v5e:2x2'), {})
  assert "'plan'" in (ROOT / 'setup.py').read_text()


def test_the_environment_of_the_compiler(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
  found: dict[str, str] = {}
  topology.prepare(topology.parse('v5p:2x2x2'), found)
  assert found['JAX_PLATFORMS'] == 'cpu'
  assert found['TPU_SKIP_MDS_QUERY'] == '1'
  assert found['TPU_ACCELERATOR_TYPE'] == 'v5p-8'


def test_every_chip_has_figures_and_a_source():
  for chip in CHIPS.values():
    assert chip.source.startswith('https://')
    # FLOP per byte of memory: 166 (v5p) to 560 (v6e) were published.
    assert 100 < chip.flops / chip.hbm_bandwidth < 1000
    assert chip.interconnect < chip.hbm_bandwidth


def test_the_prediction_is_the_stated_formula():
  chip = CHIPS['v5e']
  found = predict(
    chip,
    devices=4,
    images=8,
    flops=4 * 0.75 * chip.flops,
    useful=2 * 0.75 * chip.flops,
    traffic=0.5 * chip.hbm_bandwidth,
    moved=0.5 * chip.interconnect,
  )
  assert (found.compute, found.memory, found.collectives) == (1, 0.5, 0.25)
  assert (found.step, found.bound) == (1.25, 'compute')
  assert found.images_per_second == 8 / 1.25
  assert found.mfu == pytest.approx(0.5 * 0.75 / 1.25)
  slow = dataclasses.replace(chip, hbm_bandwidth=chip.hbm_bandwidth / 4)
  found = predict(
    slow,
    devices=1,
    images=1,
    flops=1,
    useful=1,
    traffic=chip.hbm_bandwidth,
    moved=0,
  )
  assert (found.step, found.bound) == (4, 'memory')


# ------------------------------------------------------------------- FLOPs


def test_loops_and_what_is_computed_again_are_counted():
  def layer(x, w):
    return jnp.tanh(x @ w), None

  def f(x, w):
    return jnp.sum(jax.lax.scan(jax.checkpoint(layer), x, w)[0])

  x, w = jnp.zeros((2, 8)), jnp.zeros((5, 8, 8))
  found = flops.count(jax.make_jaxpr(jax.grad(f, (0, 1)))(x, w))
  product = 2 * 2 * 8 * 8
  assert found.useful == 5 * 3 * product
  assert found.total - found.useful == 5 * product

  def g(x):
    return jax.lax.while_loop(lambda x: x[0, 0] < 3, lambda x: x @ x, x)

  found = flops.count(jax.make_jaxpr(g)(jnp.zeros((4, 4))))
  assert (found.total, found.unknown) == (2 * 4**3, 1)


def test_what_devices_do_by_themselves_is_counted_for_all_of_them():
  mesh = jax.sharding.AbstractMesh((4, 2), ('data', 'tensor'))
  with jax.sharding.use_abstract_mesh(mesh):
    spec = jax.sharding.PartitionSpec('data')
    product = jax.shard_map(lambda x: x @ x.T, in_specs=spec, out_specs=spec)
    found = flops.count(jax.make_jaxpr(product)(jnp.ones((8, 16))))
  # Both devices along `tensor` compute the same.
  assert found.total == 4 * 2 * (2 * 2 * 2 * 16)


def test_convolutions_are_counted_as_the_compiler_counts_them():
  def f(x, k):
    return jax.lax.conv_general_dilated(
      x, k, (2, 2), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  shapes = jnp.zeros((2, 9, 9, 3)), jnp.zeros((3, 3, 3, 8))
  counted = flops.count(jax.make_jaxpr(f)(*shapes)).total
  compiled = jax.jit(f).lower(*shapes).compile().cost_analysis()['flops']
  assert counted == pytest.approx(compiled, rel=0.01)


def test_what_nothing_uses_is_not_counted():
  """The weights of all pieces of a batch are summed before the first one."""

  def objective(kernel, rows):
    return Objective({'x': Term((rows['x'] @ kernel) ** 2, rows['weight'])})

  kernel = np.ones((8, 4))
  rows = {'x': np.ones((6, 8)), 'weight': np.ones((6, 1))}

  def total(pieces):
    step = lambda kernel, rows: accumulate(objective, kernel, rows, pieces)[0]
    return flops.count(jax.make_jaxpr(step)(kernel, rows)).total

  assert total(1) == total(3) == 2 * 2 * 6 * 8 * 4


def test_layers_have_the_names_of_modules():
  path = (
    '/transpose(jvp(ARModel.losses))/ARModel.hidden/backbone/'
    'stack//rematted_computation/layers/block/attention/bhnk,bhmk->bhnm'
  )
  assert flops.name(path) == 'backbone/stack/block/attention'


@pytest.fixture(scope='module')
def digits():
  return common.load_config(
    'var/digits',
    [
      'backbone.depth=2',
      'backbone.width=256',
      'backbone.block.mlp.hidden=1024',
      'condition.width=256',
      'data.batch_size=16',
      'backbone.unroll=2',
    ],
  )


def test_a_train_step_is_counted_as_the_compiler_counts_it(digits):
  placement = Placement(make_mesh({'data': 1}, jax.devices()[:1]))
  program = programs.Programs(digits, placement, cached=True)
  traced = program.trace('train')
  found = flops.count(traced.jaxpr)
  # Nothing is scanned, so the compiler's own count is whole. It has the
  # additions of the optimizer too: some 12 for every parameter.
  with placement.scope():
    compiled = traced.lower().compile().cost_analysis()['flops']
  compiled -= 12 * program.parameters
  assert found.total == pytest.approx(compiled, rel=0.04)
  assert found.total - found.useful == 0
  assert found.layers['backbone/stack/block/mlp/fc1'].useful == (
    2 * 3 * 2 * 16 * 30 * 256 * 1024
  )


# ---------------------------------------------------------- bytes of a program

PROGRAM = """HloModule m, num_partitions=4

%body.1 (p: (s32[], f32[4,128])) -> (s32[], f32[4,128]) {
  %p = (s32[], f32[4,128]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[4,128]{1,0:T(4,128)} get-tuple-element(%p), index=1
  %one = s32[]{:T(128)S(6)} constant(1)
  %next = s32[]{:T(128)S(6)} add(%i, %one)
  %y = f32[4,128]{1,0:T(4,128)} multiply(%x, %x)
  ROOT %t = (s32[], f32[4,128]{1,0}) tuple(%next, %y)
}

%condition.1 (q: (s32[], f32[4,128])) -> pred[] {
  %q = (s32[], f32[4,128]{1,0}) parameter(0)
  %j = s32[]{:T(128)S(6)} get-tuple-element(%q), index=0
  %end = s32[]{:T(128)S(6)} constant(10)
  ROOT %less = pred[]{:T(512)S(6)} compare(%j, %end), direction=LT
}

%sliced (a: f32[64,128], n: s32[]) -> f32[1,128] {
  %a = f32[64,128]{1,0:T(8,128)} parameter(0)
  %n = s32[]{:T(128)S(6)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  ROOT %s = f32[1,128]{1,0:T(1,128)} dynamic-slice(%a, %n, %zero)
}

%inner (b: bf16[16,128,128], l: s32[]) -> bf16[128,128] {
  %b = bf16[16,128,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %l = s32[]{:T(128)S(6)} parameter(1)
  %nought = s32[]{:T(128)} constant(0)
  %cut = bf16[1,128,128]{2,1,0:T(8,128)(2,1)} dynamic-slice(%b, %l, %nought, %nought)
  ROOT %flat = bf16[128,128]{1,0:T(8,128)(2,1)} bitcast(%cut)
}

%outer (c: bf16[16,128,128], d: f32[4,128], m: s32[]) -> f32[4,128] {
  %c = bf16[16,128,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %d = f32[4,128]{1,0:T(4,128)} parameter(1)
  %m = s32[]{:T(128)S(6)} parameter(2)
  %own = bf16[128,128]{1,0:T(8,128)(2,1)} fusion(%c, %m), kind=kLoop, calls=%inner
  ROOT %dot = f32[4,128]{1,0:T(4,128)} convolution(%d, %own), dim_labels=bf_io->bf
}

ENTRY %main (w: f32[64,128], v: f32[4,128], stack: bf16[16,128,128]) -> f32[4,128] {
  %w = f32[64,128]{1,0:T(8,128)} parameter(0)
  %v = f32[4,128]{1,0:T(4,128)} parameter(1)
  %stack = bf16[16,128,128]{2,1,0:T(8,128)(2,1)} parameter(2)
  %k = s32[]{:T(128)S(6)} constant(0)
  %row = f32[1,128]{1,0:T(1,128)} fusion(%w, %k), kind=kLoop, calls=%sliced
  %layer = f32[4,128]{1,0:T(4,128)} fusion(%stack, %v, %k), kind=kOutput, calls=%outer
  %near = f32[64,128]{1,0:T(8,128)S(1)} negate(%w)
  %start = (s32[], f32[4,128]{1,0}) tuple(%k, %v)
  %loop = (s32[], f32[4,128]{1,0}) while(%start), condition=%condition.1, body=%body.1
  ROOT %out = f32[4,128]{1,0:T(4,128)} get-tuple-element(%loop), index=1
}
"""


def test_bytes_of_memory_are_counted():
  rows = 4 * 128 * 4
  in_loop = 10 * (rows + 2 * rows + 4)  # the product, and the counter's read
  slice_ = 2 * 128 * 4
  scratch = 64 * 128 * 4  # read, and written where it costs nothing
  layer = 128 * 128 * 2 + 2 * rows  # one of 16, sliced two fusions deep
  assert traffic.hbm_bytes(PROGRAM) == in_loop + slice_ + scratch + layer


# ------------------------------------------------------------ plans and errors


def fake_plan(**changes):
  fields = {
    'kind': 'train',
    'config': 'var/digits',
    'topology': 'v5e:2x2',
    'mesh': {'data': 4},
    'images': 64,
    'parameters': 1000,
    'memory': {'arguments': 2**20, 'temporaries': 2**30, 'total': 2**30},
    'refusal': '',
    'layers': {'backbone/mlp': [3e12, 1e12]},
    'unknown': 0,
    'collectives': {'all-reduce': 2**20},
    'axes': {'data': 2**20},
    'traffic': 2**30,
    'rematerialised': 0,
    'seconds': 1.0,
    'versions': {'jax': '1', 'libtpu': '2'},
  }
  return report.Plan(**{**fields, **changes})


def test_plans_are_kept_and_read_again(tmp_path):
  kept = fake_plan()
  kept.save(tmp_path / 'a' / 'x.json')
  assert report.Plan.load(tmp_path / 'a' / 'x.json') == kept


def test_a_report_says_what_it_is():
  said = report.text(fake_plan())
  assert 'fits into 16.00 GiB' in said
  assert 'PREDICTION from published figures' in said and 'not measured' in said
  assert '4.0 TFLOP' in said and '1.0 are rematerialization' in said
  large = fake_plan(memory={'total': 17 * 2**30})
  assert not large.fits and 'DOES NOT FIT into 16.00 GiB' in report.text(large)
  refused = fake_plan(memory={}, refusal='(198.71G) exceeds HBM', traffic=0)
  assert not refused.fits and refused.prediction is None
  assert '198.71G' in report.text(refused)


def test_what_fits_comes_first():
  small, slow = fake_plan(), fake_plan(traffic=2**40)
  refused = fake_plan(memory={}, refusal='no')
  assert sorted([refused, slow, small], key=answer.rank) == [
    small,
    slow,
    refused,
  ]


@pytest.mark.parametrize('fits', [True, False])
def test_the_exit_code_says_whether_it_fits(
  monkeypatch, tmp_path, capsys, fits
):
  made = fake_plan() if fits else fake_plan(memory={}, refusal='198 GB')
  asked = []
  monkeypatch.setattr(topology, 'prepare', asked.append)
  monkeypatch.setattr(
    answer, 'plan', lambda question, again: asked.append(question) or made
  )
  file = tmp_path / 'plan.json'
  argv = [
    '--config=var/digits',
    '--topology=v5e:2x2',
    f'--json={file}',
    '--config.data.batch_size=32',
    '--program=train',
  ]
  assert command.main(argv) == (0 if fits else 1)
  assert asked[1].config.data.batch_size == 32
  (written,) = json.loads(file.read_text())
  assert written['fits'] == fits and ('prediction' in written) == fits
  assert 'var/digits on v5e:2x2' in capsys.readouterr().out


def question(*overrides, kind='train', where='v5e:4x4', **more):
  config = common.load_config('var/digits', overrides)
  return answer.Question(
    'var/digits', config, topology.parse(where), kind, **more
  )


def test_the_key_of_the_cache_has_all_that_matters():
  first = question()
  same = question('mesh.data=16')
  assert first.key() == same.key()
  others = [
    question('mesh.fsdp=2'),
    question('backbone.depth=3'),
    question(where='v6e:4x4'),
    question(kind='sample'),
    question(cached=True),
    question(sample_batch=32),
  ]
  assert len({q.key() for q in (first, *others)}) == 7


def test_own_parts_and_data_are_in_the_key(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  (tmp_path / 'ownlab' / 'data').mkdir(parents=True)
  (tmp_path / 'ownlab' / '__init__.py').write_text('')
  helper = tmp_path / 'ownlab' / 'data' / 'helper.py'
  helper.write_text('WIDTH = 1\n')
  (tmp_path / 'ownlab' / 'parts.py').write_text('class Part:\n  pass\n')
  own = question('optim.type=ownlab.parts.Part')
  before = own.key()
  helper.write_text('WIDTH = 2\n')
  assert own.key() != before
  # The number of classes that is left to a folder.
  config = common.load_config('var/digits').copy_and_resolve_references()
  with config.unlocked():
    config.condition.classes = None
    config.data.source = {'type': 'data.folder.Folder', 'path': str(tmp_path)}
  keys = set()
  for name in 'ab':
    (tmp_path / name).mkdir()
    for i in range(9):
      Image.new('L', (8, 8)).save(tmp_path / name / f'{i}.png')
    keys.add(dataclasses.replace(own, config=config).key())
  assert len(keys) == 2


def test_the_source_that_matters_is_in_the_key(tmp_path):
  for name in ('layers/a.py', 'plan/report.py', 'evals/b.py'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('1')
  first = answer.source_hash(tmp_path)
  (tmp_path / 'plan/report.py').write_text('2')
  (tmp_path / 'evals/b.py').write_text('2')
  assert answer.source_hash(tmp_path) == first
  (tmp_path / 'layers/a.py').write_text('2')
  assert answer.source_hash(tmp_path) != first


def test_meshes_that_divide_are_found_and_named(monkeypatch):
  asked = []

  def shapes(config, placement, cached):
    sizes = placement.mesh.shape
    asked.append(sizes)
    if sizes['tensor'] == 2:
      raise ConfigError('heads')
    return types.SimpleNamespace(state_bytes=2**35 // sizes['fsdp'])

  monkeypatch.setattr(programs, 'Programs', shapes)
  found = [mesh for mesh, _ in answer.meshes(question('data.batch_size=16'))]
  # 32 GiB of state: four devices of 16 GiB are too few, none is asked for what
  # the batch does not divide.
  assert found[0] == {'data': 4, 'fsdp': 4, 'tensor': 1}
  assert found[-1]['fsdp'] < 4
  assert all(mesh['tensor'] != 2 for mesh in found)
  assert all(16 % (s['data'] * s['fsdp']) == 0 for s in asked)


def test_published_models_may_be_cut_by_tensor():
  mesh = jax.sharding.AbstractMesh((1, 1, 2, 4, 1), AXES)
  config = common.load_config('var/imagenet256:d16', ())
  found = programs.Programs(config, Placement(mesh))
  # Of what is large, all is cut: of position tables and norms little is left.
  assert found.state_bytes < 1.1 * 3 * 4 * found.parameters / 8


def test_what_does_not_divide_is_refused_with_meshes_that_do():
  odd = question('data.batch_size=6', where='v5e:2x2')
  with pytest.raises(ConfigError) as error:
    answer.plan(odd, jax.devices() * 4)
  assert 'config.data.batch_size=6 cannot be divided' in str(error.value)
  assert 'Meshes of v5e:2x2 that divide all: --config.mesh' in str(error.value)


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='needs arvision[plan]'
)
def test_digits_are_planned_by_the_real_compiler(tmp_path):
  file = tmp_path / 'plan.json'
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'arvision',
      'plan',
      '--config=var/digits',
      '--topology=v5e:2x2',
      '--config.mesh.fsdp=4',
      '--program=train',
      '--config.backbone.unroll=1',
      f'--json={file}',
    ],
    cwd=ROOT,
    env={**os.environ, 'XDG_CACHE_HOME': str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  (plan,) = json.loads(file.read_text())
  assert plan['fits'] and plan['axes'].keys() == {'fsdp'}
  assert plan['collectives']['all-gather'] > 0
  # Parameters and moments of a quarter, and averages.
  assert plan['memory']['arguments'] < 4 * 4 * plan['parameters']
