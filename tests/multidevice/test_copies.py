"""Copies of the state in the memory of neighbours, on supervised processes."""

import json
import os
import shutil
import signal
import sys
import time

import pytest

from arvision.training import events
from tests.multidevice import processes
from tests.multidevice.test_supervised import children

_TRAIN = """
import sys, traceback
from arvision.commands import main
from arvision.parallel import host
host.use_compilation_cache()
host.initialize()
from tests.parts import training_toys as toys
folder, memory = sys.argv[1:]
seldom = {'steps': 1000}
config = toys.config(
  60,
  mesh={'data': 1, 'fsdp': -1},
  toy__width=32,
  log__every={'steps': 1},
  evals__every=seldom,
  pictures__every=seldom,
  checkpoint__every=seldom,
  checkpoint__memory={'every': {'steps': 1}, 'folder': memory},
)
try:
  toys.run(config, folder)
except Exception:  # as the command does
  traceback.print_exc()
  main._let_others_end(1)
"""
_SUPERVISED = """
import sys
from arvision.runs.supervise import Supervisor
folder, *words = sys.argv[1:]
sys.exit(Supervisor(words, folder, restarts=3).run())
"""


def program(folder, memory):
  return [sys.executable, '-c', _TRAIN, str(folder), str(memory)]


def log(folder):
  """Step -> loss."""
  found = {}
  if (folder / 'log.jsonl').exists():
    for line in (folder / 'log.jsonl').read_text().split('\n')[:-1]:
      values = json.loads(line)
      if 'loss' in values:
        found[values['step']] = values['loss']
  return found


def starts(folder):
  found = events.read(folder / 'events.jsonl')
  return [e for e in found if e['event'] == 'start']


@pytest.mark.slow
@pytest.mark.parametrize('index, loses_memory', [(0, False), (2, True)])
def test_one_of_four_is_killed(tmp_path, index, loses_memory):
  whole, folder, memory = (tmp_path / n for n in ('whole', 'run', 'memory'))
  memory.mkdir()
  before = time.time()
  processes.run(program(whole, memory), 4, devices=1)
  starting = starts(whole)[0]['time'] - before
  words = program(folder, memory)
  supervised = [sys.executable, '-c', _SUPERVISED, str(folder), *words]
  started = processes.start(supervised, 4, devices=1)
  while max(log(folder), default=0) < 10:
    assert all(process.poll() is None for process in started)
    time.sleep(0.005)
  (child,) = children(started[index])
  os.kill(child, signal.SIGKILL)
  killed, reached = time.time(), max(log(folder))
  if loses_memory:  # as if it went on on another host
    (lost,) = memory.glob(f'*/{index}')
    shutil.rmtree(lost)
  texts = processes.wait(started)
  first, second = starts(folder)
  assert first['step'] == 0 and second['step'] >= reached - 1
  assert log(folder) == log(whole)
  taken = second['time'] - killed
  print(f'recovered in {taken:.1f} s, of which a start takes {starting:.1f} s')
  assert taken - starting <= 10
  fetched = f'processes [{index}] get their shards from the memory of others'
  assert (fetched in texts[0]) == loses_memory
  assert not [*memory.iterdir()]
