"""Two supervised processes: one is killed, or stopped, and both go on."""

import json
import os
import pathlib
import signal
import sys
import time

import pytest

from benchmarks import soak
from tests.multidevice import processes

STEPS = 40


def command(folder, *more):
  return [
    *(sys.executable, '-m', 'arvision', 'train', *soak.RUNS['tokenizer']),
    f'--workdir={folder}',
    f'--config.train.duration.steps={STEPS}',
    '--config.optim.schedule.warmup.steps=5',
    '--config.data.batch_size=16',
    '--config.checkpoint.every.steps=10',
    '--config.evals.every.steps=100',
    '--config.pictures.every.steps=100',
    '--config.log.every.steps=1',
    *more,
  ]


def children(process):
  """The processes that a supervisor has started."""
  path = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
  return [int(pid) for pid in path.read_text().split()]


def log(folder):
  lines = map(json.loads, (folder / 'log.jsonl').read_text().splitlines())
  return {x['step']: x['loss'] for x in lines if 'loss' in x}


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole') / 'run'
  processes.run(command(folder), 2, devices=1)
  return log(folder)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize('index', [0, 1])
def test_both_go_on_where_they_were(undisturbed, tmp_path, index, number):
  folder = tmp_path / 'run'
  more = ('--max_restarts=3', '--config.watchdog.seconds=20')
  started = processes.start(command(folder, *more), 2, devices=1)
  while not (folder / 'checkpoints' / '10').exists():
    assert all(process.poll() is None for process in started)
    time.sleep(0.01)
  (child,) = children(started[index])
  os.kill(child, number)
  processes.wait(started)
  assert log(folder) == undisturbed
