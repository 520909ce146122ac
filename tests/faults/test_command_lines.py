"""Whatever a command line says, it runs or ends with one line and code 2."""

import concurrent.futures
import dataclasses
import functools
import gc
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from arvision.commands import main
from tests.configs import family
from tests.faults import first_program, lines

# Command -> how many of the 600; 'file' are configs of a user's own.
COUNTS = {
  'train': 190,
  'file': 90,
  'config': 14,
  'configs': 6,
  'sample': 40,
  'eval': 35,
  'edit': 30,
  'encode': 30,
  'export': 20,
  'latents': 20,
  'plan': 15,
  'reference': 25,
  'scaling': 15,
  'report': 15,
  'compare': 15,
  'sweep': 15,
  'import': 15,
  'doctor': 4,
  'completion': 6,
}
TRACED = 130
PROCESSES = 25
# Of all lines; `-m slow` runs all of them.
SHARES = [
  pytest.param(5, id='a fifth'),
  pytest.param(1, id='all', marks=pytest.mark.slow),
]
ROOT = pathlib.Path(__file__).parents[2]
OWN = ['train', '--config=OUT/own.py', '--workdir=OUT/new']


@dataclasses.dataclass(frozen=True)
class Tried:
  """A command line, the text of its config, and how it ended."""

  argv: list[str]
  text: str | None
  code: int | None
  said: list[str]
  left: list[pathlib.Path]


def trials(command, count, place):
  """Runs command lines in this process."""
  found = []

  @settings(
    max_examples=count,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
  )
  @given(lines.files() if command == 'file' else lines.command_lines(command))
  def go(line):
    argv, text = (OWN, line) if command == 'file' else (line, None)
    first_program.make_folders(place, text)
    code, said = first_program.run(argv, place)
    left = first_program.left_behind(place / 'out')
    found.append(Tried(argv, text, code, said, left))

  # Traces make garbage that is not worth looking for a hundred times.
  gc.disable()
  try:
    go()
  finally:
    gc.enable()
  assert len(found) == count
  return found


@pytest.fixture(scope='module', params=SHARES)
def tried(request, tmp_path_factory):
  """Command -> its lines as they ended, run when they are first asked for.

  It has a `share`: one of so many of the lines.
  """
  place = tmp_path_factory.mktemp('lines')
  with pytest.MonkeyPatch.context() as patch:
    first_program.prepare(patch, place)
    found = functools.cache(
      lambda name: trials(name, -(-COUNTS[name] // request.param), place)
    )
    found.share = request.param
    yield found


def wrong(found):
  """Those that neither ran nor ended with one line."""
  return [
    one
    for one in found
    if one.left
    or not (one.code in (None, 0) or (one.code, len(one.said)) == (2, 1))
  ]


def test_there_are_600_lines_of_every_command():
  assert COUNTS.keys() - {'file'} == main.commands().keys()
  assert sum(COUNTS.values()) == 600
  assert {family(n) for n in lines.QUICK} == {family(n) for n in lines.NAMES}


@pytest.mark.parametrize('command', sorted(COUNTS))
def test_lines_run_or_are_refused(command, tried):
  bad = wrong(tried(command))
  assert not bad, '\n'.join(map(repr, bad[:5]))
  assert any(one.code == 2 for one in tried(command)) or tried.share > 1


def test_steps_are_traced(tried):
  codes = [one.code for name in ('train', 'file') for one in tried(name)]
  assert codes.count(None) >= TRACED // tried.share, codes.count(None)


@pytest.mark.slow  # 5 minutes
@pytest.mark.parametrize('command', ['train', 'file'])
def test_every_line_is_traced(command, tmp_path):
  with pytest.MonkeyPatch.context() as patch:
    first_program.prepare(patch, tmp_path, anew=True)
    patch.setattr(lines, 'QUICK', lines.NAMES)
    bad = wrong(trials(command, COUNTS[command], tmp_path))
  assert not bad, '\n'.join(map(repr, bad[:5]))


def test_real_processes_end_alike(tried, tmp_path):
  env = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'TF_CPP_MIN_LOG_LEVEL': '3',
    'PYTHONPATH': os.pathsep.join(
      [str(ROOT), os.environ.get('PYTHONPATH', '')]
    ),
  }
  # What runs further than to its first program takes minutes, and NUL bytes
  # cannot be given to a process.
  ended = [
    one
    for name in COUNTS
    for one in tried(name)
    if one.code is not None and '\0' not in ''.join(one.argv)
  ]
  count = PROCESSES // tried.share
  every = [ended[i * len(ended) // count] for i in range(count)]

  def start(i):
    folder = tmp_path / str(i)
    first_program.make_folders(folder, every[i].text)
    return subprocess.run(
      [sys.executable, '-m', 'arvision']
      + first_program.words(every[i].argv, folder),
      capture_output=True,
      text=True,
      errors='backslashreplace',
      env=env,
      cwd=folder,
      timeout=120,
    )

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for one, done in zip(every, pool.map(start, range(count))):
      said = first_program.faulty(done.stderr)
      # In this process the folders of runs hold runs.
      codes = {one.code, 2} if 'RUN' in ''.join(one.argv) else {one.code}
      assert done.returncode in codes, (one, done.stderr)
      assert len(said) == (done.returncode == 2), (one, done.stderr)
  assert not first_program.left_behind(tmp_path)


def test_only_debug_shows_a_traceback(capsys, monkeypatch):
  line = "arvision: error: no flag '--workdr'. Did you mean '--workdir'?"
  for argv in (['train', '--workdr=x'], ['train', '--workdr', 'x']):
    assert main.main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith(line) and said.count('\n') == 1
    for i in range(len(argv) + 1):
      assert main.main([*argv[:i], '--debug', *argv[i:]]) == 2
      said = capsys.readouterr().err
      assert said.startswith('Traceback') and line in said.splitlines()[-1]


@pytest.mark.parametrize(
  ('error', 'code', 'said'),
  [
    (
      PermissionError(13, 'Permission denied', '/x'),
      2,
      "'/x': Permission denied",
    ),
    (OSError(28, 'No space left on device'), 2, 'No space left on device'),
    (RecursionError('deep'), 2, 'nested too deep'),
    (UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'bad'), 2, 'not UTF-8'),
    (MemoryError(), 1, 'out of memory'),
    (RuntimeError('RESOURCE_EXHAUSTED: 9 GB'), 1, '--batch_size'),
    (ZeroDivisionError('a\nb'), 1, 'ZeroDivisionError: a b (--debug shows'),
    (KeyboardInterrupt(), 130, 'interrupted'),
  ],
)
def test_every_exception_is_one_line(monkeypatch, capsys, error, code, said):
  from arvision.commands import report

  def fail(argv):
    raise error

  monkeypatch.setattr(report, 'main', fail)
  assert main.main(['report']) == code
  text = capsys.readouterr().err
  assert said in text and text.count('\n') == 1 and 'Traceback' not in text


def test_a_traceback_of_ours_is_kept_in_the_workdir(
  monkeypatch, capsys, tmp_path
):
  from arvision.commands import train

  monkeypatch.setattr(train, 'main', lambda argv: [][1])
  (tmp_path / 'config.json').write_text('{}')
  assert main.main(['train', f'--workdir={tmp_path}']) == 1
  assert f'the traceback is in {tmp_path}/error.txt' in capsys.readouterr().err
  assert 'IndexError' in (tmp_path / 'error.txt').read_text()


def test_a_pipe_that_nobody_reads_is_no_error():
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(
    [sys.executable, '-m', 'arvision', '--help'],
    stdout=writer,
    stderr=subprocess.PIPE,
    cwd=ROOT,
  )
  os.close(writer)
  assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b'')


def test_experiment_says_what_it_wants():
  done = subprocess.run(
    ['bash', 'launch/experiment.sh'], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 2
  assert done.stderr.startswith('usage: ') and done.stderr.count('\n') == 1
