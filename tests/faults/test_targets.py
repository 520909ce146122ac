"""Places that cannot be written to: found before the work, told in a line."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from arvision.commands.main import main
from arvision.errors import ConfigError, DataError
from arvision.evals import cache
from arvision.runs import evaluate as evaluation
from arvision.runs import targets
from arvision.training import checkpoint, pictures, trees
from arvision.training.writers import Writer
from tests.faults.test_commands_runs import (  # noqa: F401  (fixtures)
  fails,
  generator,
  tokenizer,
)
from tests.parts import training_toys as toys


def full(*_, **__):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def small_disk(monkeypatch):
  """A disk with 1,000 bytes left."""
  usage = type('Usage', (), {'free': 1000})
  monkeypatch.setattr(targets.shutil, 'disk_usage', lambda path: usage)
  return usage


@pytest.mark.parametrize(
  ('command', 'flags', 'blocked'),
  [
    ('sample', ['--labels=1'], 'samples'),
    ('sample', ['--labels=1', '--name=a'], 'samples/a'),
    ('edit', ['--held_out=1'], 'edits'),
    ('eval', ['--output={0}/there/eval.json'], 'there'),
    ('eval', ['--classifiers={0}/there'], 'there'),
  ],
)
def test_a_file_in_the_way_is_found_before_anything_is_drawn(
  generator,  # noqa: F811
  tmp_path,
  capsys,
  command,
  flags,
  blocked,
):
  path = tmp_path / blocked
  path.parent.mkdir(exist_ok=True)
  path.write_text('precious')
  flags = [flag.format(tmp_path) for flag in flags]
  error = fails(capsys, command, f'--workdir={tmp_path}', *flags)
  assert 'cannot be written' in error and len(error.splitlines()) == 1
  assert generator.calls == [] and path.read_text() == 'precious'


def test_a_folder_in_the_way_of_a_file(generator, tmp_path, capsys):  # noqa: F811
  (tmp_path / 'eval.json').mkdir()
  error = fails(capsys, 'eval', f'--workdir={tmp_path}')
  assert 'wanted a file' in error and generator.calls == []


def test_places_are_refused_that_cannot_be_made(tmp_path, monkeypatch):
  for check in (targets.check_file, targets.check_folder):
    check(tmp_path / 'new' / 'deep')
    with pytest.raises(ConfigError, match='--output: .*NUL'):
      check(f'{tmp_path}/a\0b', '--output')
    with pytest.raises(ConfigError, match='cannot be written'):
      check(tmp_path / ('x' * 300) / 'y')
  assert list(tmp_path.iterdir()) == []
  monkeypatch.setattr(targets.tempfile, 'TemporaryFile', full)
  with pytest.raises(ConfigError, match='No space left on device; free space'):
    targets.check_folder(tmp_path / 'new')


def test_what_is_known_to_be_too_large_is_not_begun(
  generator,  # noqa: F811
  small_disk,
  tmp_path,
  capsys,
):
  argv = ['sample', f'--workdir={tmp_path}', '--labels=all', '--npz']
  assert main([*argv, '--number=1']) == 0  # 10 x (64 pixels + 4 x 4 bytes)
  generator.calls.clear()
  error = fails(capsys, *argv, '--number=2')
  assert '0.00 GB are free' in error and generator.calls == []


def test_a_disk_that_becomes_full_leaves_what_was_there(
  generator,  # noqa: F811
  tmp_path,
  capsys,
  monkeypatch,
):
  argv = ['sample', f'--workdir={tmp_path}', '--labels=1', '--npz']
  assert main([*argv, '--number=1']) == 0
  before = (tmp_path / 'samples/seed0/samples.npz').read_bytes()
  monkeypatch.setattr(pictures, 'save', full)
  error = fails(capsys, *argv, '--number=3')
  assert 'No space left' in error and len(error.splitlines()) == 1
  assert [p.name for p in (tmp_path / 'samples').iterdir()] == ['seed0']
  assert (tmp_path / 'samples/seed0/samples.npz').read_bytes() == before


def test_figures_are_printed_before_they_are_written(
  tokenizer,  # noqa: F811
  tmp_path,
  capsys,
  monkeypatch,
):
  monkeypatch.setattr(targets.pathlib.Path, 'write_text', full)
  assert main(['eval', f'--workdir={tmp_path}']) == 2
  said = capsys.readouterr()
  assert 'psnr_db' in said.out
  assert 'No space left' in said.err and len(said.err.splitlines()) == 1
  assert list(tmp_path.iterdir()) == []


def test_a_classifier_that_cannot_be_kept_serves_all_the_same(
  generator,  # noqa: F811
  tmp_path,
  monkeypatch,
):
  from tests.faults.test_commands_runs import QUICK

  monkeypatch.setattr(cache.np, 'savez', full)
  said = []
  metrics = evaluation.evaluate(
    generator,
    ['generation'],
    samples=20,
    sampling={'seed': 0},
    recipe=QUICK,
    classifiers=tmp_path,
    say=said.append,
  )
  assert any('class_accuracy' in name for name in metrics)
  assert any('cannot be written: No space left' in line for line in said)
  assert list(tmp_path.iterdir()) == []


def test_eval_says_which_average_was_loaded(tokenizer, tmp_path, monkeypatch):  # noqa: F811
  from arvision.commands import run_flags
  from tests.faults.test_commands_runs import Toy

  config = tokenizer.config.copy_and_resolve_references()
  with config.unlocked():
    config.ema = (0.5, 0.99)
  for ema in ('0.99', 'raw'):
    toy = Toy(config, ema=ema)
    monkeypatch.setattr(run_flags, 'load_run', lambda *_, toy=toy: toy)
    assert main(['eval', f'--workdir={tmp_path}']) == 0
    assert json.loads((tmp_path / 'eval.json').read_text())['ema'] == ema


def test_a_checkpoint_is_not_begun_without_room(tmp_path, small_disk):
  tree = {'kernel': np.zeros((1000, 1000), np.float32)}
  small_disk.free = 5_000_000
  with pytest.raises(DataError, match='5.0 MB are free, 8.2 MB wanted; free'):
    trees.save_tree(tmp_path / 'tree', tree)
  assert list(tmp_path.iterdir()) == []
  trees.save_tree(tmp_path / 'tree', {'kernel': tree['kernel'][:9]})


def test_a_disk_that_fills_up_ends_a_run_after_its_checkpoint(
  tmp_path,
  small_disk,
  capsys,
  monkeypatch,
):
  small_disk.free = 10_000_000
  saved = checkpoint.Checkpoints.save

  def save(self, step, *args):
    if step == 10:
      small_disk.free = 10
    saved(self, step, *args)

  monkeypatch.setattr(checkpoint.Checkpoints, 'save', save)
  with pytest.raises(DataError, match='resumes after step 5'):
    toys.run(toys.config(), tmp_path)
  names = [p.name for p in (tmp_path / 'checkpoints').iterdir()]
  assert names == ['5']
  assert 'Traceback' not in capsys.readouterr().err


def test_a_board_that_cannot_be_written_ends_a_run(tmp_path):
  writer = Writer(tmp_path, 10, 0, lambda step: 4 * step)
  worker = writer._events._worker
  writer._events._event_queue.put(worker._shutdown_signal)
  worker.join(10)
  with pytest.raises(OSError, match='cannot be written any more'):
    for step in range(10):
      writer.scalars(step, {'loss': 1.0}, '')
  writer.close()


_FILLING = """
import errno, os, threading
from arvision.runs.targets import filling

def fill():
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def other():
  raise RuntimeError('another fault')

try:
  with filling('run'):
    for target in (fill, other):
      thread = threading.Thread(target=target)
      thread.start()
      thread.join()
    raise ValueError('Error writing x: No space left on device [...]')
except ValueError as error:
  print(error)
"""


def test_threads_that_find_a_full_disk_are_silent():
  done = subprocess.run(
    [sys.executable, '-c', _FILLING], capture_output=True, text=True, check=True
  )
  assert "--workdir: 'run': no space is left" in done.stdout
  assert 'No space left' not in done.stderr
  assert done.stderr.count('Traceback') == 1 and 'another fault' in done.stderr
