"""Runs at URLs that are killed with -9, and resume where nothing is cached.

Once through fsspec's local protocol, and once against a server that speaks S3:

    pip install 'moto[server]' 's3fs'
    pytest -m slow tests/endtoend/test_remote_resume.py
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import fsspec
import numpy as np
import pytest

from arvision.training import workdir as workdirs
from arvision.training.checkpoint import saved_position
from tests.parts import training_toys as toys

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 60
# Uploads follow one another at once, so that a kill may hit any of them.
PROGRAM = (
  'import sys; from arvision.commands.main import main; '
  'from arvision.runs import remote; remote.PERIOD = 0.05; '
  'sys.exit(main(sys.argv[1:]))'
)


@contextlib.contextmanager
def local_folder(folder):
  yield (folder / 'bucket').as_uri(), {}


@contextlib.contextmanager
def s3(folder):
  import s3fs  # noqa: F401
  from moto.server import ThreadedMotoServer

  server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  keys = {
    'AWS_ENDPOINT_URL': f'http://{host}:{port}',
    'AWS_ACCESS_KEY_ID': 'key',
    'AWS_SECRET_ACCESS_KEY': 'secret',
    'AWS_DEFAULT_REGION': 'us-east-1',
  }
  with pytest.MonkeyPatch.context() as patch:
    for name, value in keys.items():
      patch.setenv(name, value)
    fsspec.filesystem('s3', skip_instance_cache=True).mkdir('bucket')
    yield 's3://bucket', keys
  server.stop()


def start(command, cache, keys, **options):
  """A process of arvision on a machine with a cache folder of its own."""
  machine = {**os.environ, **keys, 'XDG_CACHE_HOME': str(cache)}
  return subprocess.Popen(
    [sys.executable, '-c', PROGRAM, *command],
    **{'cwd': ROOT, 'env': machine, 'text': True, **options},
  )


def train(workdir):
  return (
    'train',
    '--config=var/digits_tokenizer',
    f'--workdir={workdir}',
    f'--config.train.duration.steps={STEPS}',
    '--config.optim.schedule.warmup.steps=20',
    '--config.data.batch_size=16',
    '--config.checkpoint.every.steps=5',
    f'--config.evals.every.steps={STEPS // 2}',
    f'--config.pictures.every.steps={STEPS // 2}',
    '--config.log.every.steps=10',
    '--config.tokenizer.encoder.ch=8',
    '--config.tokenizer.decoder.ch=8',
  )


def log(folder):
  lines = (folder / 'log.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  for line in lines:
    line.pop('images_per_second', None)
  return lines


def at(system, root):
  """step -> files of the checkpoints at a URL."""
  system.invalidate_cache()
  found = {}
  for path in system.find(f'{root}/checkpoints'):
    step, _, name = path.partition('/checkpoints/')[2].partition('/')
    if step:  # S3 may list the folder itself
      found.setdefault(int(step), set()).add(name)
  return found


def kill(command, cache, keys, system, root, after, uploading):
  """Kills a run once it uploads, or has uploaded, a later checkpoint."""
  process = start(command, cache, keys)
  while process.poll() is None:
    later = {k: v for k, v in at(system, root).items() if k > after}
    whole = [k for k, v in later.items() if '_CHECKPOINT_METADATA' in v]
    if len(later) > len(whole) if uploading else whole:
      break
    time.sleep(0.01)
  process.kill()
  process.wait()
  found = at(system, root)
  return max(k for k, v in found.items() if '_CHECKPOINT_METADATA' in v)


@pytest.mark.slow
@pytest.mark.parametrize('place', [local_folder, s3])
def test_a_run_killed_twice_ends_as_one_in_a_folder(place, tmp_path):
  with place(tmp_path) as (bucket, keys):
    url = f'{bucket}/runs/tokenizer'
    system, root = fsspec.core.url_to_fs(url)
    whole = tmp_path / 'whole'
    assert start(train(whole), tmp_path / 'cache', keys).wait() == 0
    stops = [0]
    for i, uploading in enumerate((False, True)):
      command, cache = train(url), tmp_path / f'machine-{i}'
      stops.append(
        kill(command, cache, keys, system, root, stops[-1], uploading)
      )
    assert 0 < stops[1] <= stops[2] < STEPS, stops
    last = start(train(url), tmp_path / 'last', keys, stdout=subprocess.PIPE)
    said = last.communicate()[0]
    assert last.returncode == 0
    assert f'results in {url}' in said and 'resuming after' in said, said
    # Nothing stays on the machine.
    assert not list((tmp_path / 'last').glob('arvision/workdirs/*'))
    killed = tmp_path / 'killed'
    system.get(root, str(killed), recursive=True)
    a, b = toys.arrays(whole), toys.arrays(killed)
    assert a.keys() == b.keys()
    for path in a:
      np.testing.assert_array_equal(a[path], b[path], err_msg=path)
    assert log(killed) == log(whole)
    assert saved_position(killed) == saved_position(whole) != {}
    assert {*at(system, root)} == {STEPS - 5, STEPS}
    assert workdirs.saved_steps(killed) == [STEPS, STEPS - 5]
    # Other commands read it, and write to it.
    reader = tmp_path / 'reader'
    export = tmp_path / 'out.safetensors'
    for command in (
      ('encode', f'--workdir={url}', f'--output={bucket}/tokens'),
      ('report', f'--workdir={url}'),
      ('compare', url, str(whole), f'--output={bucket}/compared'),
      ('export', f'--workdir={url}', f'--output={export}'),
    ):
      done = start(
        command, reader, keys, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
      )
      said = done.communicate()[0]
      assert done.returncode == 0, said
      assert '.partial-' not in said, said
    assert export.exists()
    system.invalidate_cache()
    for name in (
      'runs/tokenizer/report.html',
      'compared/compare.html',
      'tokens/spec.json',
    ):
      assert system.exists(f'{bucket}/{name}'), name
