"""Folders that are filled under another name, by processes that are killed."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from arvision import atomic
from arvision.data.records import new_folder
from arvision.errors import DataError

_FILL = """
import pathlib, sys, time
from arvision import atomic
with atomic.beside(pathlib.Path(sys.argv[1])) as folder:
  (folder / 'half').write_text('x')
  print(folder, flush=True)
  time.sleep(60)
"""


@pytest.fixture
def filling(tmp_path):
  """A process that fills a folder, and that folder."""
  command = [sys.executable, '-c', _FILL, str(tmp_path / 'tokens')]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  yield process, pathlib.Path(process.stdout.readline().strip())
  process.kill()
  process.wait()
  process.stdout.close()


def test_what_a_killed_process_left_is_removed(filling, tmp_path):
  process, left = filling
  process.kill()
  process.wait()
  assert (left / 'half').exists()
  with new_folder(str(tmp_path / 'tokens')) as folder:
    (folder / 'whole').write_text('x')
  assert [p.name for p in tmp_path.iterdir()] == ['tokens']
  assert [p.name for p in (tmp_path / 'tokens').iterdir()] == ['whole']


def test_what_a_process_fills_is_left_alone(filling, tmp_path):
  process, left = filling
  with atomic.beside(tmp_path / 'other') as folder:
    atomic.finish(folder, tmp_path / 'other')
  assert (left / 'half').exists()
  process.send_signal(signal.SIGINT)
  process.wait()
  assert not left.exists()


@pytest.mark.parametrize(
  'name', ['.x.partial-12', '.x.partial', '.x.partial-a']
)
def test_what_is_not_ours_is_left_alone(tmp_path, name):
  (tmp_path / name).mkdir()
  (tmp_path / name / 'mine').write_text('precious')
  with atomic.beside(tmp_path / 'x') as folder:
    atomic.finish(folder, tmp_path / 'x')
  assert (tmp_path / name / 'mine').read_text() == 'precious'


def test_nothing_is_left_of_an_error(tmp_path):
  with pytest.raises(DataError), new_folder(str(tmp_path / 'x')):
    raise DataError('x')
  assert not os.listdir(tmp_path)
