"""One device of eight computes or stores wrong bits."""

import json
import sys

import pytest

from tests.multidevice import processes

# Parts of arrays have eight copies, two, or one.
MESHES = {'data': {'data': 8}, 'mixed': {'data': 2, 'fsdp': 4}}
KINDS = {
  'data': ('memory', 'activation', 'gradient'),
  'mixed': ('rest', 'activation', 'gradient'),
}

_TRIALS = """
import json, sys
from tests.multidevice import corruption
for trials in json.loads(sys.argv[1]):
  print(json.dumps(corruption.trials(*trials)))
"""

_RUNS = """
import sys
import numpy as np
import pytest
from arvision.training.corruption import Corrupted
from tests.multidevice import corruption
from tests.parts import training_toys as toys

def run(folder, **changes):
  never = {'every': {'steps': 0}}
  few = {'evals': never, 'pictures': {**never, 'count': 1}}
  config = toys.config(8, mesh={'data': -1}, **few, **changes)
  from arvision.runs.train import train
  made = {'make_data': toys.make_data, 'make_task': corruption.make_task}
  train(config, f'{sys.argv[1]}/{folder}', **made)
  return toys.arrays(f'{sys.argv[1]}/{folder}')

often = {'corruption': {'every': {'steps': 4}}}
plain, checked = run('plain'), run('checked', **often)
for name in plain:
  np.testing.assert_array_equal(plain[name], checked[name], err_msg=name)
fault = {'fault': (corruption.ACTIVATION, 5, 3, 11), 'since': 6, 'width': 8}
with pytest.raises(Corrupted) as error:
  run('faulty', **often, toy=fault)
print(error.value)
"""


def _run(trials):
  """The result of `corruption.trials` for each of some arguments."""
  program = [sys.executable, '-c', _TRIALS, json.dumps(trials)]
  (text,) = processes.run(program, count=1, devices=8)
  return [json.loads(line) for line in text.splitlines()]


def test_a_flipped_bit_is_found_and_its_device_named():
  trials = [(MESHES['data'], 4, KINDS['data']), (MESHES['mixed'], 4, ['rest'])]
  for result in _run(trials):
    for kind, (found, said) in result.items():
      assert found == 4, (kind, said)


@pytest.mark.slow
@pytest.mark.parametrize('mesh', MESHES)
def test_a_hundred_flipped_bits(mesh):
  (result,) = _run([(MESHES[mesh], 100, KINDS[mesh])])
  for kind, (found, said) in result.items():
    print(kind, found, 'of 100', *said)
    assert found >= 99, (kind, said)


def test_a_run_stops_and_keeps_what_is_good(tmp_path):
  program = [sys.executable, '-c', _RUNS, str(tmp_path)]
  (text,) = processes.run(program, count=1, devices=8)
  said = text.splitlines()[-1]
  assert 'of a micro-batch on device 5 (cpu, process 0 on' in said
  assert 'after step 8; step 5 was checked' in said
  assert 'the checkpoint of step 5 was checked before its save' in said
  assert 'checks for corruption took' in text
  folder = tmp_path / 'faulty' / 'checkpoints'
  assert [p.name for p in folder.iterdir() if p.name.isdigit()] == ['5']
  events = (tmp_path / 'faulty' / 'events.jsonl').read_text().splitlines()
  assert json.loads(events[-1])['why'] == 'Corrupted'
