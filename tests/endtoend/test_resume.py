"""A run that is killed with -9, again and again, ends as one that is not."""

import json
import os
import pathlib
import random
import subprocess
import sys
import time

import numpy as np

from tests.parts import training_toys as toys

ROOT = pathlib.Path(__file__).parents[2]
_PROGRAM = """
import sys
from tests.parts import training_toys as toys
every = {'steps': 10**6}
toys.run(
  toys.config(
    STEPS, checkpoint__every={'steps': 5}, evals__every=every,
    pictures__every=every
  ),
  sys.argv[1],
)
""".replace('STEPS', '300')


def start(folder):
  return subprocess.Popen(
    [sys.executable, '-c', _PROGRAM, str(folder)],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.DEVNULL,
  )


def newest(folder):
  found = (folder / 'checkpoints').glob('*')
  return max((int(p.name) for p in found if p.name.isdigit()), default=0)


def kill_later(folder, seconds):
  """Starts a run and kills it some time after its first new checkpoint."""
  before = newest(folder)
  process = start(folder)
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


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  process = start(whole)
  chance = random.Random(0)
  stops = []
  for _ in range(3):
    kill_later(killed, chance.uniform(0, 0.3))
    stops.append(newest(killed))
  assert 0 < stops[0] < stops[1] < stops[2] < 300, stops
  assert process.wait() == 0
  assert start(killed).wait() == 0
  a, b = toys.arrays(whole), toys.arrays(killed)
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)
  assert log(killed) == log(whole)
