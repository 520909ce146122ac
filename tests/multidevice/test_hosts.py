"""Runs of one and of several processes train, sample and evaluate alike."""

import functools
import json
import re
import signal
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from arvision.commands import run_flags as commands
from arvision.errors import ConfigError
from arvision.parallel import host
from tests.multidevice import processes
from tests.parts import training_toys as toys

# Commands, one after another. What process 1 would write, it fails to.
_COMMANDS = """
import functools, json, os, sys
from arvision.commands import eval
from arvision.runs import targets
from arvision.commands.main import main
from arvision.evals.classifier import Recipe
if os.environ.get('JAX_PROCESS_ID', '0') != '0':
  targets.write_text = targets.whole_folder = None
quick = Recipe(images=320, batch_size=32, width=8, features=16)
eval.evaluate = functools.partial(eval.evaluate, recipe=quick)
for argv in json.loads(sys.argv[1]):
  if code := main(argv):
    sys.exit(code)
"""
STEPS = 6
TOKENIZER = (
  '--config.tokenizer.encoder.ch=8',
  '--config.tokenizer.decoder.ch=8',
)
VAR = (
  '--config=var/digits',
  '--config.backbone.width=32',
  '--config.backbone.depth=2',
  '--config.condition.width=32',
  '--config.mesh.data=2',
  '--config.mesh.fsdp=4',
  '--config.task.draws=8',
)


def program(*argvs):
  return [sys.executable, '-c', _COMMANDS, json.dumps(argvs)]


def train(workdir, *flags, steps=STEPS):
  return [
    'train',
    f'--workdir={workdir}',
    f'--config.train.duration.steps={steps}',
    '--config.optim.schedule.warmup.steps=1',
    '--config.data.batch_size=16',
    '--config.checkpoint.every.steps=100',
    '--config.evals.every.steps=100',
    '--config.pictures.every.steps=100',
    # More than the half of a batch that one of two processes makes.
    '--config.pictures.count=12',
    '--config.log.every.steps=1',
    *TOKENIZER,
    *flags,
  ]


def use(workdir, name):
  """Twenty images of a run, and its figures."""
  drawn = ['--labels=all', '--number=2', '--npz', f'--name={name}']
  figures = ['--samples=20', f'--output={workdir}/{name}.json']
  folder = f'--classifiers={workdir}/{name}'
  images = f'{workdir}/samples/{name}/samples.npz'
  scores = [
    'eval',
    f'--images={images}',
    f'--reference={images}',
    f'--extractor=tests.parts.evals_toys.Toy:{workdir}/config.json',
    '--figures=fid,kid,recall,inception_score',
    f'--output={workdir}/{name}_scores.json',
  ]
  return (
    # Twelve to a call: the last call is not full.
    ['sample', f'--workdir={workdir}', '--batch_size=12', *drawn],
    ['eval', f'--workdir={workdir}', '--batch_size=12', *figures, folder],
    scores,
  )


def log(workdir):
  lines = (workdir / 'log.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A run of one process, `one`; and `two` of two and then of one."""
  folder = tmp_path_factory.mktemp('hosts')
  tokenizer = train(folder / 'tok', '--config=var/digits_tokenizer', steps=2)
  var = (*VAR, f'--config.frozen.tokenizer={folder}/tok')
  one, two = train(folder / 'one', *var), train(folder / 'two', *var)
  run = processes.run
  run(program(tokenizer, one, *use(folder / 'one', 'alone')), 1, devices=8)
  both = use(folder / 'one', 'together')
  said = run(program([*two, '--stop_at=3'], *both), 2, devices=4)
  (folder / 'second.txt').write_text(said[1])
  assert [line['step'] for line in log(folder / 'two')] == [1, 2, 3]
  run(program(two), 1, devices=8)
  return folder


def test_two_processes_go_on_as_one(folder):
  one, two = log(folder / 'one'), log(folder / 'two')
  # One line for every step, and the figures of the last one.
  assert [line['step'] for line in two] == [1, 2, 3, 4, 5, 6, 6]
  assert abs(one[0]['loss'] - one[5]['loss']) > 0.01
  for a, b in zip(one, two, strict=True):
    assert a.keys() == b.keys()
    for name in a.keys() - {'images_per_second'}:
      np.testing.assert_allclose(b[name], a[name], rtol=1e-5, err_msg=name)
  one, two = toys.arrays(folder / 'one'), toys.arrays(folder / 'two')
  assert one.keys() == two.keys()
  for name in one:
    np.testing.assert_allclose(
      two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name
    )


def test_two_processes_leave_one_position_in_the_data(folder):
  meta = [
    json.loads(
      (folder / run / f'checkpoints/{STEPS}/meta/metadata').read_text()
    )
    for run in ('one', 'two')
  ]
  # Losses are equal to rounding.
  losses = [m['data'].pop('spikes') for m in meta]
  assert meta[0] == meta[1]
  for a, b in zip(*map(jax.tree.leaves_with_path, losses), strict=True):
    assert a[0] == b[0]
    np.testing.assert_allclose(a[1], b[1], rtol=1e-5)
  assert meta[0]['data']['batches']['next_batch'] == STEPS


def test_two_processes_show_the_same_pictures(folder):
  one, two = (folder / run / 'pictures' for run in ('one', 'two'))
  names = sorted(p.name for p in one.iterdir())
  assert names == sorted(p.name for p in two.iterdir())
  assert 'first_batch.png' in names
  first = [
    np.asarray(Image.open(run / 'first_batch.png'), np.int16)
    for run in (one, two)
  ]
  # A sum that is cut up elsewhere may round a reconstruction to the next grey.
  different = abs(first[0] - first[1])
  assert different.max() <= 1 and (different > 0).mean() < 1e-3


def test_two_processes_draw_what_one_draws(folder):
  alone, together = (
    folder / 'one' / 'samples' / name for name in ('alone', 'together')
  )
  names = sorted(p.name for p in alone.iterdir())
  assert len(names) == 22
  assert names == sorted(p.name for p in together.iterdir())
  a, b = (np.load(f / 'samples.npz') for f in (alone, together))
  for key in ('tokens', 'labels', 'arr_0'):
    np.testing.assert_array_equal(a[key], b[key])
  assert len(np.unique(a['tokens'], axis=0)) > 10
  for name in names:
    if name.endswith('.png'):
      assert (alone / name).read_bytes() == (together / name).read_bytes()


def test_two_processes_score_what_one_scores(folder):
  """Features are divided over all devices of all processes."""
  alone, together = (
    json.loads((folder / 'one' / f'{name}_scores.json').read_text())
    for name in ('alone', 'together')
  )
  assert alone['protocols'] == together['protocols']
  assert alone['metrics'].keys() == together['metrics'].keys()
  for name, value in alone['metrics'].items():
    np.testing.assert_allclose(
      together['metrics'][name], value, rtol=1e-6, atol=1e-9, err_msg=name
    )


def test_two_processes_measure_what_one_measures(folder):
  alone, together = (
    json.loads((folder / 'one' / f'{name}.json').read_text())['metrics']
    for name in ('alone', 'together')
  )
  assert alone.keys() == together.keys()
  figures = {name.split('/')[0] for name in alone}
  assert {'psnr_db', 'ssim', 'codebook_usage', 'frechet', 'memorised'} < figures
  for name in alone:
    if not name.startswith('sampling_images_per_second'):
      np.testing.assert_allclose(
        together[name], alone[name], rtol=1e-5, err_msg=name
      )


def test_process_0_alone_speaks_and_keeps(folder):
  said = (folder / 'second.txt').read_text()
  # The library that connects them is not to be silenced; its threads write
  # pieces of lines into one another's.
  gloo = '[Gloo] Rank is connected to peer ranks Expected number of connected'
  assert set(re.findall(r'[^\s.:\d]+', said)) <= set(gloo.split())
  assert len(list((folder / 'one' / 'together').glob('*.npz'))) == 1


_FAILS = """
import sys, types
from arvision.commands import main
def work(argv):
  import jax
  from arvision.data.base import DataError
  from arvision.parallel import host
  host.initialize()
  if jax.process_index() == 0:
    raise DataError('spoilt')
  host.barrier('that process 0 never reaches')
sys.modules['arvision.commands.train'] = types.SimpleNamespace(main=work)
sys.argv = ['arvision', 'train']
main.run()
"""


def test_a_process_that_fails_leaves_nobody_waiting():
  started = processes.start([sys.executable, '-c', _FAILS], 2, 1)
  try:
    codes = [process.wait(timeout=60) for process in started]
  finally:
    for process in started:
      process.kill()
  assert codes[0] == 2 and codes[1] != 0


_SAMPLES = """
import json, sys
import flax.linen as nn
import jax, numpy as np
from arvision.parallel.mesh import make_mesh
from arvision.tasks import assemble
from arvision.training.weights import Weights
from arvision.runs.trained import placed
from tests.configs import TINY
from tests.multidevice.families import numbers
jax.config.update('jax_default_matmul_precision', 'highest')
name, meshes, path = json.loads(sys.argv[1])
config = TINY[name]()
params = numbers(assemble.trained_shapes(config))
image = np.zeros((1, *config.data.size, config.data.channels), np.float32)
init = assemble.make_tokenizer(config).init
shapes = jax.eval_shape(init, jax.random.key(0), image)
kept = {'tokenizer': numbers(nn.unbox(shapes))}
out = {}
for mesh, sizes in meshes.items():
  devices = jax.devices()[: int(np.prod([*sizes.values()]))]
  run = placed(Weights(config, params, 0, 'raw'), kept, make_mesh(sizes, devices))
  whole = [x.sharding.is_fully_replicated for x in jax.tree.leaves(run.params)]
  assert all(whole) == ('fsdp' not in sizes), mesh
  # Not a multiple of the devices.
  images, tokens = run.sample_fn(seed=5)(np.arange(10), np.arange(10))
  out |= {f'{mesh}/images': images, f'{mesh}/tokens': tokens}
np.savez(path, **out)
"""
MESHES = {
  'one': {'data': 1},
  'two': {'data': 2},
  'eight': {'data': 8},
  'fsdp': {'fsdp': 8},
}


def same_samples(name, meshes, tmp_path):
  given = json.dumps([name, meshes, str(tmp_path / 'samples.npz')])
  processes.run(
    [sys.executable, '-c', _SAMPLES, given],
    count=1,
    devices=8,
  )
  found = np.load(tmp_path / 'samples.npz')
  images, tokens = found['one/images'], found['one/tokens']
  assert len(np.unique(tokens, axis=0)) == len(tokens) == 10
  codes = tokens.dtype == np.int32
  for mesh in meshes:
    close = functools.partial(np.testing.assert_allclose, err_msg=mesh)
    if codes:
      np.testing.assert_array_equal(found[f'{mesh}/tokens'], tokens, mesh)
      close(found[f'{mesh}/images'], images, atol=1e-5)
    else:
      close(found[f'{mesh}/tokens'], tokens, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('name', 'meshes'),
  [('var/tiny:d16', MESHES), ('maskgit/tiny', ('one', 'eight'))],
)
def test_devices_draw_what_one_draws(name, meshes, tmp_path):
  same_samples(name, {mesh: MESHES[mesh] for mesh in meshes}, tmp_path)


def test_a_mesh_for_sampling_is_read():
  assert commands.mesh_sizes('data=2,fsdp=-1') == {'data': 2, 'fsdp': -1}
  for text in ('', 'data', 'data=x', 'data=2;fsdp=4'):
    with pytest.raises(ConfigError, match='wanted axes and sizes'):
      commands.mesh_sizes(text)


# --------------------------------------------------------------- environment

ADDRESS = {'JAX_COORDINATOR_ADDRESS': 'a:1'}
EXPLICIT = {**ADDRESS, 'JAX_NUM_PROCESSES': '4', 'JAX_PROCESS_ID': '3'}
NEITHER = {'num_processes': None, 'process_id': None}


@pytest.fixture
def join(monkeypatch):
  """environment -> what JAX is asked for, None where it is not asked."""
  asked = []
  ours = (
    'JAX_COORDINATOR',
    'JAX_NUM_PROC',
    'JAX_PROCESS',
    'SLURM_',
    'TPU_',
    'MEGASCALE_',
  )

  def call(env, error=None):
    def initialize(**given):
      asked.append(given)
      if error:
        raise error

    monkeypatch.setattr(jax.distributed, 'initialize', initialize)
    for name in [n for n in host.os.environ if n.startswith(ours)]:
      monkeypatch.delenv(name)
    for name, value in env.items():
      monkeypatch.setenv(name, value)
    host.initialize()
    return asked.pop() if asked else None

  return call


@pytest.mark.parametrize(
  ('env', 'asked'),
  [
    ({}, None),
    (EXPLICIT, {'num_processes': 4, 'process_id': 3}),
    # A cluster manager says the rest, or JAX that there is none.
    (ADDRESS, NEITHER),
    ({'SLURM_STEP_NUM_TASKS': '8'}, NEITHER),
    ({'SLURM_STEP_NUM_TASKS': '1'}, None),
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, NEITHER),
    ({'TPU_PROCESS_ADDRESSES': 'a:1,b:1'}, NEITHER),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, None),
    ({'TPU_WORKER_HOSTNAMES': 'a', 'MEGASCALE_NUM_SLICES': '2'}, NEITHER),
    # A TPU VM, whose metadata JAX reads, and one where it may not.
    ({'TPU_ML_PLATFORM': 'JAX'}, NEITHER),
    ({'TPU_ML_PLATFORM': 'JAX', 'TPU_SKIP_MDS_QUERY': '1'}, None),
    ({'TPU_ML_PLATFORM': 'JAX', 'TPU_WORKER_HOSTNAMES': 'localhost'}, None),
    (
      {'SLURM_STEP_NUM_TASKS': '8', **EXPLICIT},
      {'num_processes': 4, 'process_id': 3},
    ),
  ],
)
def test_the_environment_tells_of_other_processes(env, asked, join):
  assert join(env) == asked


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    ({'JAX_PROCESS_ID': 'x'}, "JAX_PROCESS_ID='x': wanted a number, 0 or more"),
    ({'JAX_PROCESS_ID': '-1'}, "JAX_PROCESS_ID='-1'"),
    ({'JAX_NUM_PROCESSES': '0'}, "JAX_NUM_PROCESSES='0'.* 1 or more"),
    ({'JAX_PROCESS_ID': '4'}, 'JAX_PROCESS_ID=4 of .*=4: wanted 0 to 3'),
    ({'JAX_COORDINATOR_ADDRESS': ''}, 'no JAX_COORDINATOR_ADDRESS'),
    ({'SLURM_STEP_NUM_TASKS': 'many'}, "SLURM_STEP_NUM_TASKS='many'"),
  ],
)
def test_an_environment_that_does_not_fit_is_refused(change, said, join):
  with pytest.raises(ConfigError, match=said):
    join({**EXPLICIT, **change})


def test_what_jax_misses_is_told(join):
  missing = ValueError('The process id must be defined.')
  with pytest.raises(ConfigError, match='JAX_PROCESS_ID=None: The process id'):
    join({**ADDRESS, 'JAX_NUM_PROCESSES': '2'}, missing)


# -------------------------------------------------------------------- longer


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  [
    'maskgit/tiny',
    'llamagen/tiny:B',
    'rar/tiny',
    'mar/tiny:B',
    'xar/tiny:cell',
    'flowar/tiny:S',
  ],
)
def test_devices_draw_what_one_draws_of_more_families(name, tmp_path):
  more = {'tensor': {'fsdp': 4, 'tensor': 2}}
  same_samples(name, {**MESHES, **more}, tmp_path)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_and_saves_both(folder, tmp_path):
  var = (*VAR, f'--config.frozen.tokenizer={folder}/tok')
  argv = train(tmp_path / 'var', *var, steps=5000)
  started = processes.start(program(argv), 2, 4)
  path = tmp_path / 'var' / 'log.jsonl'
  while not (path.exists() and path.read_text()):
    time.sleep(0.1)
    assert all(p.poll() is None for p in started)
  started[1].send_signal(signal.SIGTERM)
  said = processes.wait(started, code=128 + signal.SIGTERM)
  assert 'stopped and saved after step' in said[0]
  step = log(tmp_path / 'var')[-1]['step']
  saved = [p.name for p in (tmp_path / 'var' / 'checkpoints').iterdir()]
  assert 0 < step < 5000 and str(step) in saved
