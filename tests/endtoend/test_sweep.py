"""sweep: kills and resumes, processes and devices, tables, what is refused."""

import csv
import functools
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from arvision.commands import sweep as command
from arvision.commands.main import main
from arvision.errors import ConfigError
from arvision.sweeps import devices, points, pool, remote, status
from arvision.sweeps.runs import Job, Runs

TINY = """from arvision.configs.llamagen import tiny_tokenizer


def get_config():
  config = tiny_tokenizer.get_config().unlock()
  # One resolution: a step is traced within seconds.
  small = {'ch_mult': (1,), 'patch': 2, 'attention': False}
  config.tokenizer.encoder.update(small)
  config.tokenizer.decoder.update(small)
  config.train.duration = {'steps': 4}
  config.checkpoint.every = {'steps': 2}
  config.log.every = {'steps': 1}
  config.evals.every = config.pictures.every = {'steps': 4}
  config.optim.schedule.warmup = {'steps': 1}
  return config


def get_sweep():
  yield {'name': 'slow', 'optim.learning_rate': 1e-4, 'seeds': [0, 1]}
  yield {'name': 'fast one', 'optim': {'learning_rate': 1e-3}, 'seeds': [0]}
"""


class Ended:
  """A process that has run here."""

  def __init__(self, code):
    self.code = code

  def poll(self):
    return self.code


class Here:
  """Runs commands in this process, and is killed in the middle of one."""

  def __init__(self, patch, killed=-1):
    self.killed, self.words = killed, []
    patch.setattr(command, 'Pool', functools.partial(pool.Pool, start=self))

  def __call__(self, line, share, output):
    words = line[3:]
    self.words.append(words)
    if len(self.words) - 1 == self.killed:
      main([*words, '--stop_at=2'])
      raise KeyboardInterrupt
    return Ended(main(words))

  @property
  def did(self):
    """('train', name of the run), ... in order."""
    folder = lambda words: next(w for w in words if w.startswith('--workdir='))
    return [(w[0], pathlib.PurePath(folder(w)).name) for w in self.words]


def rows(folder):
  """results.csv without speeds, which differ between any two runs."""
  with (folder / 'results.csv').open() as file:
    return [r for r in csv.reader(file) if 'images_per_second' not in r]


@pytest.mark.slow  # a minute
def test_a_killed_sweep_finishes_what_is_missing(tmp_path, monkeypatch, capsys):
  (tmp_path / 'tiny.py').write_text(TINY)
  line = ['sweep', f'--config={tmp_path}/tiny.py', '--eval=--batch_size=64']
  whole, killed = (f'--workdir={tmp_path}/{name}' for name in ('a', 'b'))
  here = Here(monkeypatch)
  assert main([*line, whole]) == 0
  names = ['slow_seed0', 'fast_one_seed0', 'slow_seed1']
  assert here.did == [(k, n) for n in names for k in ('train', 'eval')]

  # The first two runs come from there; the training of the third is killed.
  done = shutil.ignore_patterns('*_seed1*', 'results.*')
  shutil.copytree(tmp_path / 'a', tmp_path / 'b', ignore=done)
  here = Here(monkeypatch, killed=0)
  assert main([*line, killed]) == 130
  assert here.did == [('train', 'slow_seed1')]
  assert f'arvision {shlex.join([*line, killed])}' in capsys.readouterr().out
  here = Here(monkeypatch)
  assert main([*line, killed]) == 0
  assert here.did == [(k, n) for n in names[2:] for k in ('train', 'eval')]
  table = rows(tmp_path / 'a')
  assert rows(tmp_path / 'b') == table and len(table) > 5
  assert {row[0] for row in table[1:]} == {'slow', 'fast one'}
  at = {name: i for i, name in enumerate(table[0])}
  for row in table[1:]:
    slow = row[0] == 'slow'
    assert row[at['runs']] == ('2' if slow else '1')
    found = [float(row[at[f'seed_{seed}']]) for seed in range(1 + slow)]
    assert float(row[at['mean']]) == pytest.approx(sum(found) / len(found))
    assert (row[at['pairs']] == '1') == (not slow)
  text = (tmp_path / 'a' / 'results.md').read_text()
  assert '| fast one | 1 |' in text and ', Δ ' in text and ' ± ' in text
  assert 'fast one' in (tmp_path / 'a' / 'results.html').read_text()

  assert main([*line, killed, '--dry_run']) == 0
  assert capsys.readouterr().out.count('is complete') == 3
  other = [word.replace('64', '32') for word in line]
  assert main([*other, killed]) == 2
  assert "eval is ['--batch_size=64'] there" in capsys.readouterr().err
  (tmp_path / 'tiny.py').write_text(TINY.replace('1e-4', '2e-4'))
  assert main([*line, killed]) == 2
  assert 'learning_rate: 0.0001 there' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('entry', 'said'),
  [
    ("{'optim.learning_rat': 1}", "point 'learning_rat=1': config.optim.lea"),
    ("{'optim.learning_rate': 'x'}", '--config.optim.learning_rate=x: wanted'),
    ("{'name': 'slow'}", "two points are named 'slow'"),
    ("{'seed': 1}", "wanted 'seeds'"),
    ("{'seeds': [1, 1]}", 'wanted different whole numbers'),
    ("{'variant': 'x'}", "has no variant 'x'"),
    ("{'needs': {'frozen.x': 'none'}}", 'no such file'),
    ('3', 'point 2 of get_sweep() is 3, wanted a dict'),
    ('1 / 0', 'ZeroDivisionError'),
  ],
)
def test_bad_points_are_refused(tmp_path, capsys, entry, said):
  (tmp_path / 'tiny.py').write_text(f'{TINY}  yield {entry}\n')
  words = [f'--config={tmp_path}/tiny.py', f'--workdir={tmp_path}/out']
  assert main(['sweep', *words]) == 2
  [error] = capsys.readouterr().err.splitlines()
  assert said in error and not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    (['--config=var/digits'], 'has no function get_sweep'),
    (['--config=var/imagenet256'], '--sweep=variant=d16,'),
    (['--config=var/digits', '--sweep=seed=1,2'], 'see --seeds'),
    (['--config=var/digits', '--sweep=ema=1,1'], 'wanted KEY=A,B,...'),
    (['--config=var/digits', '--sweep=ema=0.1,0.2'], 'train it first'),
    (['--config=ablations/orders', '--eval=--samplse=3'], '--samples'),
    (['--config=ablations/orders', '--tpu='], 'add --dry_run'),
    (['--config=ablations/orders', '--seeds=0,0'], 'wanted different seeds'),
    (['--config=ablations/orders', '--devices=0'], 'has no accelerator'),
    (['--config=ablations/orders', '--slurm=--gpuss=1'], 'unrecognized'),
    (['--config=ablations/orders', '--slurm='], "'sbatch' is not on PATH"),
  ],
)
def test_bad_flags_are_refused(tmp_path, capsys, flags, said):
  assert main(['sweep', *flags, f'--workdir={tmp_path}/out']) == 2
  [error] = capsys.readouterr().err.splitlines()
  assert said in error and not (tmp_path / 'out').exists()


def test_values_of_the_command_line_are_combined():
  found = points.quick(['a.b=1,(2,3)', 'variant=x,y'])
  assert [p.name for p in found] == ['x,b=1', 'y,b=1', 'x,b=(2,3)', 'y,b=(2,3)']
  assert found[2].overrides == {'a.b': '(2,3)'} and found[2].variant == 'x'
  assert points.slug('x,b=(2, 3)') == 'x_b=_2_3_'


# Answers like `arvision`, and says what it got.
FAKE = """import json, os, pathlib, signal, sys, time
words = sys.argv[4:]
folder = pathlib.Path(words[1].partition('=')[2])
folder.mkdir(exist_ok=True)
def stop(*_):
  (folder / 'saved').touch()
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
keys = ('NPROC', 'OMP_NUM_THREADS')
(folder / words[0]).write_text(json.dumps([time.time(), words] + [os.environ.get(k) for k in keys]))
print('step 1/2  loss 3', flush=True)
time.sleep({'waits': 60, 'brief': 0.3}.get(folder.name, 0))
if words[0] == 'eval':
  pathlib.Path(words[2].partition('=')[2]).write_text('{}')
sys.exit(3 if folder.name == 'fails' else 0)
"""


@pytest.fixture
def fake(tmp_path):
  (tmp_path / 'fake.py').write_text(FAKE)
  (tmp_path / 'logs').mkdir()
  return Runs(tmp_path / 'runs', (sys.executable, str(tmp_path / 'fake.py')))


def test_jobs_wait_for_what_they_need_and_share_the_cores(fake, tmp_path):
  ends = (fake.evaluation('one'),)
  jobs = [
    Job('brief', ('--config=x',)),
    Job('one', ('--config=y',), ('brief',), ends),
    Job('fails', ()),
    Job('late', (), ('fails',)),
  ]
  shares = devices.shares(2, environ={'JAX_PLATFORMS': 'cpu'})
  with (tmp_path / 'said').open('w') as out:
    shown = status.Status(jobs, tmp_path / 'logs', out)
    failed = pool.Pool(fake, jobs, shown, shares).run()
  assert failed == {
    'fails': 'train ended with code 3',
    'late': 'it needs fails',
  }
  read = lambda *names: json.loads(fake.root.joinpath(*names).read_text())
  threads = str(max(1, devices.cores() // 2))
  assert read('one', 'train')[2:] == [threads, threads]
  assert read('one', 'train')[0] > read('brief', 'train')[0] + 0.3
  assert read('one', 'eval')[0] > read('one', 'train')[0]
  assert not fake.folder('late').exists()
  assert fake.seconds('brief') > 0.3 and not fake.missing(jobs[1])
  said = (tmp_path / 'said').read_text().splitlines()
  assert 'one    done' in said and any(
    x.startswith('fails  train') for x in said
  )
  assert (tmp_path / 'logs' / 'one.log').read_text().count('loss 3') == 2


def test_a_signal_stops_all_processes_and_they_save(fake, tmp_path):
  jobs = [Job('waits', ())]

  def interrupt():
    while not (fake.folder('waits') / 'train').exists():
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=interrupt).start()
  with (tmp_path / 'said').open('w') as out:
    shown = status.Status(jobs, tmp_path / 'logs', out)
    with pytest.raises(KeyboardInterrupt):
      pool.Pool(fake, jobs, shown).run()
  assert (fake.folder('waits') / 'saved').exists()
  assert fake.seconds('waits') > 0 and fake.missing(jobs[0])


def test_accelerators_are_partitioned(tmp_path, monkeypatch):
  for name in ('nvidia0', 'nvidia1', 'nvidia2', 'nvidia3', 'nvidiactl'):
    (tmp_path / name).touch()
  monkeypatch.setattr(devices, '_installed', lambda name: 'cuda12' in name)
  own = devices.accelerators
  assert own({}, tmp_path) == ('gpu', ['0', '1', '2', '3'])
  assert own({'CUDA_VISIBLE_DEVICES': '2,5'}, tmp_path) == ('gpu', ['2', '5'])
  assert own({'JAX_PLATFORMS': 'cpu'}, tmp_path) == ('', [])
  monkeypatch.setattr(
    devices, 'accelerators', lambda environ: own(environ, tmp_path)
  )
  shares = functools.partial(devices.shares, environ={})
  key = 'CUDA_VISIBLE_DEVICES'
  assert shares(1) == [{}]
  assert [share[key] for share in shares(2)] == ['0,1', '2,3']
  assert [share[key] for share in shares(1, ['3'])] == ['3']
  with pytest.raises(ConfigError, match='at most 4'):
    shares(5)


def test_an_array_job_runs_and_queues_again(fake, tmp_path):
  jobs = [
    Job('tok', ('--config=t',)),
    Job('a', ('--config=x', "--config.a='b c'"), ('tok',)),
    Job('b', ('--config=x',), ('tok',), (fake.evaluation('b'),)),
  ]
  slurm = remote.Slurm(gpus=2, setup='true', sbatch='--account=me', at_once=3)
  first, then = remote.scripts(fake, jobs, slurm, tmp_path)
  assert '--array=0-0%3\n' in first and '--array=0-1%3\n' in then
  assert '#SBATCH --account=me\n' in then and 'DEVICE_IDS=0,1\n' in then
  for name, code in (('srun', '$(cat code)'), ('scontrol', '0')):
    path = tmp_path / name
    path.write_text(f'#!/bin/bash\necho {name} "$@" >>calls\nexit {code}\n')
    path.chmod(0o755)
  for code, ends, last in (
    (0, 0, f'eval --workdir={fake.folder("b")}'),
    (143, 143, 'scontrol requeue 7'),
    (1, 1, f'train --workdir={fake.folder("b")} --config=x'),
  ):
    (tmp_path / 'code').write_text(str(code))
    ids = {'SLURM_ARRAY_TASK_ID': '1', 'SLURM_JOB_ID': '7'}
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    done = subprocess.run(
      ['bash', '-c', then], cwd=tmp_path, env={'PATH': path, **ids}
    )
    assert done.returncode == ends
    assert last in (tmp_path / 'calls').read_text().splitlines()[-1]
  [line, *_] = remote.tpu_lines(fake, jobs[1:], ['--zone=z'], 'sweep')
  assert shlex.split(line) == [
    *('bash', 'launch/tpu_pod.sh', '--name=sweep-0', '--zone=z', '--config=x'),
    *(f'--workdir={fake.folder("a")}', '--', "--config.a='b c'"),
  ]


@pytest.mark.slow  # 15 minutes
def test_six_digits_runs_are_killed_and_go_on(tmp_path):
  """Three orders of prediction, two seeds: by processes, kill -9 in between."""
  line = [
    *(sys.executable, '-m', 'arvision', 'sweep', '--config=ablations/orders'),
    *('--sweep=variant=token,diagonal,scale', '--seeds=0,1'),
    *('--eval=--samples=200', '--config.train.duration.epochs=2'),
    '--config.optim.schedule.warmup.steps=10',
    f'--config.frozen.tokenizer={tmp_path}/tokenizer',
  ]
  train = [*line[:3], 'train', '--config=llamagen/digits_tokenizer']
  train += ['--config.train.duration.epochs=2']
  train += ['--config.optim.schedule.warmup.steps=10']
  subprocess.run([*train, f'--workdir={tmp_path}/tokenizer'], check=True)
  subprocess.run([*line, f'--workdir={tmp_path}/whole'], check=True)
  killed = tmp_path / 'killed'
  process = subprocess.Popen([*line, f'--workdir={killed}'])
  while len([*killed.glob('*/eval.json')]) < 2:
    time.sleep(0.1)
  while not [*killed.glob('*_seed0/checkpoints/*/_CHECKPOINT_METADATA')][2:]:
    time.sleep(0.01)
  process.kill()
  process.wait()
  done = {path: path.stat().st_mtime for path in killed.glob('*/eval.json')}
  time.sleep(20)  # what the dead process had started saves and ends
  subprocess.run([*line, f'--workdir={killed}'], check=True)
  assert {path: path.stat().st_mtime for path in done} == done
  speeds = lambda row: any('images_per_second' in cell for cell in row)
  tables = [
    [row for row in rows(tmp_path / name) if not speeds(row)]
    for name in ('whole', 'killed')
  ]
  assert tables[0] == tables[1] and len(tables[0]) > 10
