"""A run that is killed with -9, again and again, ends as one that is not."""

import json
import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.parts import training_toys as toys

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 60
TOKENIZER = (
  '--config.tokenizer.encoder.ch=8',
  '--config.tokenizer.decoder.ch=8',
)
CONFIGS = {'tokenizer': 'var/digits_tokenizer', 'var': 'var/digits'}
SMALL = {
  'tokenizer': (*TOKENIZER, '--config.task.restart_after=10'),
  'var': (
    *TOKENIZER,
    '--config.backbone.width=32',
    '--config.condition.width=32',
  ),
}


def start(name, folder):
  """The process of `arvision train` on digits, in a small size."""
  command = [
    *(sys.executable, '-m', 'arvision', 'train'),
    f'--config={CONFIGS[name]}',
    f'--workdir={folder}',
    f'--config.train.duration.steps={STEPS}',
    '--config.optim.schedule.warmup.steps=20',
    '--config.data.batch_size=16',
    '--config.checkpoint.every.steps=5',
    f'--config.evals.every.steps={STEPS // 2}',
    f'--config.evals.reconstruction.every.steps={STEPS // 2}',
    f'--config.pictures.every.steps={STEPS // 2}',
    '--config.log.every.steps=10',
    *SMALL[name],
  ]
  if name == 'var':
    tokenizer = folder.parent / 'tokenizer-whole'
    command.append(f'--config.frozen.tokenizer={tokenizer}')
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def newest(folder):
  found = (folder / 'checkpoints').glob('*')
  return max((int(p.name) for p in found if p.name.isdigit()), default=0)


def kill_later(name, folder, seconds):
  """Starts a run and kills it some time after its first new checkpoint."""
  before = newest(folder)
  process = start(name, folder)
  while newest(folder) <= before and process.poll() is None:
    time.sleep(0.005)
  time.sleep(seconds)
  process.kill()
  process.wait()


def log(folder):
  lines = (folder / 'log.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  for line in lines:
    line.pop('images_per_second', None)
  return lines


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('runs')


# The second run reads the tokenizer that the first has trained.
@pytest.mark.parametrize('name', ['tokenizer', 'var'])
def test_a_killed_run_ends_as_if_it_had_not_been(folder, name):
  whole, killed = folder / f'{name}-whole', folder / f'{name}-killed'
  assert start(name, whole).wait() == 0
  chance = random.Random(name)
  stops = []
  for _ in range(2):
    kill_later(name, killed, chance.uniform(0, 0.5))
    stops.append(newest(killed))
  assert 0 < stops[0] < stops[1] < STEPS, stops
  assert start(name, killed).wait() == 0
  a, b = toys.arrays(whole), toys.arrays(killed)
  assert a.keys() == b.keys()
  for path in a:
    np.testing.assert_array_equal(a[path], b[path], err_msg=path)
  assert log(killed) == log(whole)
  measured = [x['step'] for x in log(whole) if 'psnr_db/' in ' '.join(x)]
  assert measured == [STEPS // 2, STEPS]
