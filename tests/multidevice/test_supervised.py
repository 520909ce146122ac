"""Supervised processes: killed or stopped, and on other numbers of devices."""

import json
import os
import pathlib
import shutil
import signal
import sys
import threading
import time

import numpy as np
import pytest

from arvision.runs.supervise import Supervisor
from arvision.training import events
from arvision.training.kept import read_meta
from arvision.training.workdir import saved_steps
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


def starts(folder):
  found = events.read(folder / 'events.jsonl')
  return [e['step'] for e in found if e['event'] == 'start']


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


@pytest.mark.slow
@pytest.mark.parametrize('index', [0, 1])
def test_both_go_on_from_the_last_whole_save(undisturbed, tmp_path, index):
  folder = tmp_path / 'run'
  started = processes.start(command(folder, '--max_restarts=3'), 2, devices=1)
  saving = folder / 'checkpoints' / '20.orbax-checkpoint-tmp'
  while not saving.exists():
    assert all(process.poll() is None for process in started)
    time.sleep(0.001)
  (child,) = children(started[index])
  os.kill(child, signal.SIGKILL)
  assert saved_steps(folder)[0] == 10
  processes.wait(started)
  assert log(folder) == undisturbed
  first, *later = starts(folder)
  assert first == 0 and {*later} == {10}


# Every start has its own number of devices.
_DEVICES = """
import os, pathlib, sys
starts, counts, *words = sys.argv[1:]
with open(starts, 'a+') as file:
  file.write('x')
  file.seek(0)
  count = counts.split(',')[len(file.read()) - 1]
flag = '--xla_force_host_platform_device_count='
os.environ['XLA_FLAGS'] = flag + count
os.execv(sys.executable, words)
"""
EIGHT = (
  '--config.data.batch_size=48',
  '--config.train.duration.steps=12',
  '--config.checkpoint.every.steps=4',
  '--config.checkpoint.keep=3',
)


def close(one, other):
  assert [*one] == [*other]
  np.testing.assert_allclose([*one.values()], [*other.values()], rtol=1e-5)


@pytest.fixture(scope='module')
def eight(tmp_path_factory):
  """A run on eight devices."""
  folder = tmp_path_factory.mktemp('eight') / 'run'
  processes.run(command(folder, *EIGHT), 1, devices=8)
  return folder


@pytest.mark.slow
def test_eight_devices_become_six_and_eight_again(eight, tmp_path, capfd):
  folder = tmp_path / 'run'
  words = command(folder, *EIGHT)
  own = [sys.executable, '-c', _DEVICES, str(tmp_path / 'n'), '8,6,8', *words]
  supervisor = Supervisor(own, folder, 1, first_pause=0.01)

  def kill():
    for step in (4, 8):
      while not (folder / 'checkpoints' / str(step)).exists():
        time.sleep(0.01)
      supervisor._process.kill()

  killer = threading.Thread(target=kill, daemon=True)
  killer.start()
  assert supervisor.run() == 0
  assert starts(folder) == [0, 4, 8]
  said = capfd.readouterr().out
  assert said.count('on 8 x cpu') == 2 and said.count('on 6 x cpu') == 1
  close(log(folder), log(eight))


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 2, 4])
def test_a_checkpoint_of_eight_devices_resumes_on_fewer(
  eight, tmp_path, devices
):
  folder = tmp_path / 'run'
  shutil.copytree(eight, folder)
  for step in (8, 12):
    shutil.rmtree(folder / 'checkpoints' / str(step))
  processes.run(command(folder, *EIGHT), 1, devices)
  assert starts(folder) == [0, 4]
  close(log(folder), log(eight))
  position = [
    read_meta(run / 'checkpoints' / '12')['data']['batches']
    for run in (folder, eight)
  ]
  assert position[0] == position[1]


@pytest.mark.slow
def test_a_mesh_of_eight_devices_is_refused_on_six(eight, tmp_path, capfd):
  words = command(tmp_path / 'run', *EIGHT, '--config.mesh.data=8')
  processes.wait(processes.start(words, 1, devices=6), code=2)
  said = capfd.readouterr().err
  assert 'config.mesh (data=8) has 8 devices, there are 6' in said
  assert '--config.mesh.data=-1' in said
