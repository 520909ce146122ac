"""Whatever a command line says, it runs or ends with one line and code 2."""

import concurrent.futures
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from arvision.commands import main
from tests.faults import lines

# Command -> how many of the 600; FILES are configs of a user's own.
FILES = 60
COUNTS = {
  'train': 116,
  'config': 18,
  'configs': 6,
  'sample': 80,
  'eval': 50,
  'edit': 80,
  'encode': 50,
  'export': 30,
  'latents': 30,
  'plan': 25,
  'report': 25,
  'import': 30,
}
PROCESSES = 25
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp('lines')
  with pytest.MonkeyPatch.context() as patch:
    lines.prepare(patch, folder)
    yield folder


def tried(strategy, count, place):
  """Runs command lines; returns those that did not end well, and all codes."""
  wrong, codes = [], set()

  @settings(
    max_examples=count,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
  )
  @given(strategy)
  def go(argv):
    shutil.rmtree(place / 'out', ignore_errors=True)
    (place / 'out').mkdir()
    (place / 'out' / 'file').write_text('x')
    if isinstance(argv, str):
      (place / 'out' / 'own.py').write_text(argv)
      argv = ['train', '--config=OUT/own.py', '--workdir=OUT/new']
    code, said = lines.run(argv, place)
    codes.add(code)
    if code not in (None, 0) and (code, len(said)) != (2, 1):
      wrong.append((argv, code, said))
    wrong.extend((argv, 'left', p) for p in lines.left_behind(place / 'out'))

  go()
  return wrong, codes


def test_there_are_600_lines_of_every_command():
  assert COUNTS.keys() == main.commands().keys()
  assert sum(COUNTS.values()) + FILES == 600


@pytest.mark.parametrize('command', sorted(COUNTS))
def test_lines_run_or_are_refused(command, place):
  strategy = lines.command_lines(command)
  wrong, codes = tried(strategy, COUNTS[command], place)
  assert not wrong, '\n'.join(map(repr, wrong[:5]))
  assert 2 in codes and (command != 'train' or None in codes)


def test_configs_run_or_are_refused(place):
  wrong, codes = tried(lines.files(), FILES, place)
  assert not wrong, '\n'.join(map(repr, wrong[:5]))
  assert codes >= {2, None}


# What is wrong with these shows before anything is opened.
WRONG = (
  *('--workdr=x', '--number=0', '--number=1e400', '--seed=-1', '--top_p=nan'),
  *(
    '--temperature=inf',
    '--guidance=-1',
    '--top_k=1.5',
    '--batch_size=' + '9' * 30,
  ),
  *('--mesh=data', '--mesh=--', '--step=x', '--config=/dev/null', '--labels'),
)
TRAINED = (
  *(
    '--config.seed=-1',
    '--config.optim.learning_rate=nan',
    '--config.ema=(2.0,)',
  ),
  *(
    '--config.optim.b2=1.0',
    '--config.optim.eps=0.0',
    '--config.data.size=(0,8)',
  ),
  *(
    '--config.train.duration.epochs=-3',
    '--config.backbone.depth=0',
    '--stop_at=0',
  ),
  *('--config.optm.b1=0.5', '--config.head.vocab_size=-4'),
)


def processes(folder):
  """25 command lines, each with a fault."""
  for flag in WRONG:
    yield ['sample', f'--workdir={folder}/none', flag]
  for flag in TRAINED:
    yield ['train', '--config=llamagen/digits', f'--workdir={folder}/new', flag]


def test_real_processes_end_with_one_line(tmp_path):
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '3'}

  def start(argv):
    return subprocess.run(
      [sys.executable, '-m', 'arvision', *argv],
      capture_output=True,
      text=True,
      env=env,
      cwd=ROOT,
      timeout=120,
    )

  every = list(processes(tmp_path))
  assert len(every) == PROCESSES
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for argv, done in zip(every, pool.map(start, every)):
      said = lines.faulty(done.stderr)
      assert (done.returncode, len(said)) == (2, 1), (argv, done.stderr)
  assert not list(tmp_path.iterdir())


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
