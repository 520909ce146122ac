"""Stops a training again and again, and compares it with one that is not stopped.

    python -m benchmarks.soak --kills=50 --folder=/tmp/soak
    python -m benchmarks.soak --kills=10 --signal=TERM --folder=/tmp/soak

Trains a small generator, or its tokenizer, on digits. A process is stopped at a
random moment: while it trains, while it saves, or after a save. All arrays of the
last checkpoint and all logged values must have the same bits as those of the
undisturbed run.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from arvision.training import events
from arvision.training.trees import load_tree
from arvision.training.workdir import CHECKPOINTS, EVENTS, LOG, saved_steps

ROOT = pathlib.Path(__file__).parents[1]
_TOKENIZER = (
  '--config.tokenizer.encoder.ch=8',
  '--config.tokenizer.decoder.ch=8',
)
# name -> config and its flags, small enough to start many times.
RUNS: dict[str, tuple[str, ...]] = {
  'tokenizer': (
    '--config=var/digits_tokenizer',
    *_TOKENIZER,
    '--config.task.restart_after=10',
  ),
  'var': (
    '--config=var/digits',
    *_TOKENIZER,
    '--config.backbone.width=32',
    '--config.condition.width=32',
  ),
}
# Moments at which a process is stopped.
MOMENTS = ('training', 'saving', 'saved')
# Steps of a run for every time that it is stopped.
_STEPS = 30


@dataclasses.dataclass(frozen=True)
class Training:
  """A training in a folder.

  Attributes:
    name: key of `RUNS`.
    folder: the folder; that of the tokenizer is `tokenizer-whole` beside it.
    steps: steps of the whole run.
  """

  name: str
  folder: pathlib.Path
  steps: int

  def start(self) -> subprocess.Popen:
    """Starts its process."""
    half = self.steps // 2
    words = [
      *(sys.executable, '-m', 'arvision', 'train'),
      *RUNS[self.name],
      f'--workdir={self.folder}',
      f'--config.train.duration.steps={self.steps}',
      '--config.optim.schedule.warmup.steps=20',
      '--config.data.batch_size=16',
      '--config.checkpoint.every.steps=5',
      f'--config.evals.every.steps={half}',
      f'--config.evals.reconstruction.every.steps={half}',
      f'--config.pictures.every.steps={half}',
      '--config.log.every.steps=10',
    ]
    if self.name == 'var':
      tokenizer = self.folder.parent / 'tokenizer-whole'
      words.append(f'--config.frozen.tokenizer={tokenizer}')
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)

  def finish(self) -> None:
    """Trains to the end.

    Raises:
      RuntimeError: the process failed.
    """
    if code := self.start().wait():
      raise RuntimeError(f'{self.folder}: training ended with code {code}')

  def stop(self, number: int, moment: str, chance: random.Random) -> int:
    """Starts it, and sends a signal at a moment; returns the exit code."""
    saved, starts = self.newest, self._starts()
    process = self.start()
    reached = {
      'training': lambda: self._starts() > starts,
      'saving': self._saving,
      'saved': lambda: self.newest > saved,
    }[moment]
    while not reached() and process.poll() is None:
      time.sleep(0.002)
    most = {'training': 2.0, 'saving': 0.03, 'saved': 0.5}[moment]
    time.sleep(chance.uniform(0, most))
    process.send_signal(number)
    return process.wait()

  @property
  def newest(self) -> int:
    """The step of the newest checkpoint, 0 without one."""
    return max(saved_steps(self.folder), default=0)

  def events(self) -> list[Mapping[str, Any]]:
    """Its starts, saves and ends."""
    return events.read(self.folder / EVENTS)

  def _starts(self):
    return sum(e['event'] == 'start' for e in self.events())

  def _saving(self):
    # An old one is removed at the start.
    return any(
      time.time() - path.stat().st_mtime < 1
      for path in (self.folder / CHECKPOINTS).glob('*.orbax-checkpoint-tmp')
    )

  def arrays(self) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint, by path."""
    tree = load_tree(self.folder / CHECKPOINTS / str(self.newest) / 'state')
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    text = lambda p: jax.tree_util.keystr(p, simple=True, separator='/')
    return {text(path): np.asarray(leaf) for path, leaf in leaves}

  def log(self) -> list[dict[str, float]]:
    """The lines of its log without speeds."""
    lines = (self.folder / LOG).read_text().splitlines()
    found = [json.loads(line) for line in lines]
    for line in found:
      line.pop('images_per_second', None)
    return found


def stop_often(
  training: Training, times: int, number: int, seed: int
) -> dict[str, int]:
  """Stops a training some times; it is not complete then.

  Args:
    training: the training.
    times: how often.
    number: the signal.
    seed: of the moments.

  Returns:
    moment -> how often it was stopped then.

  Raises:
    RuntimeError: a process ended in another way.
  """
  chance = random.Random(f'{training.name} {seed}')
  found = dict.fromkeys(MOMENTS, 0)
  wanted = -number if number == signal.SIGKILL else 128 + number
  while sum(found.values()) < times:
    moment = chance.choice(MOMENTS)
    code = training.stop(number, moment, chance)
    if code != wanted:
      raise RuntimeError(
        f'{training.folder}: wanted the exit code {wanted}, got {code} at step '
        f'{training.newest} of {training.steps}'
      )
    found[moment] += 1
  return found


def difference(one: Training, other: Training) -> str:
  """The first array or value in which two complete runs differ, '' for none."""
  a, b = one.arrays(), other.arrays()
  if a.keys() != b.keys():
    return f'arrays: {sorted(a.keys() ^ b.keys())}'
  for path in a:
    if a[path].dtype != b[path].dtype or a[path].tobytes() != b[path].tobytes():
      return path
  for before, after in zip(one.log(), other.log()):
    for name in {*before} | {*after}:
      if before.get(name) != after.get(name):
        return f'{name} of step {before["step"]}'
  lines = [len(x.log()) for x in (one, other)]
  return '' if lines[0] == lines[1] else f'log: {lines[0]} and {lines[1]} lines'


def digest(training: Training) -> str:
  """SHA-256 of the arrays and the log of a run."""
  found = hashlib.sha256()
  for path, array in sorted(training.arrays().items()):
    found.update(f'{path} {array.dtype} {array.shape}\n'.encode())
    found.update(array.tobytes())
  found.update(json.dumps(training.log(), sort_keys=True).encode())
  return found.hexdigest()


def repeated(training: Training) -> int:
  """Most steps that a start repeated after a regular end."""
  found, most = training.events(), 0
  for before, after in zip(found, found[1:]):
    if before['event'] == 'end' and after['event'] == 'start':
      most = max(most, int(before['step'] - after['step']))
  return most


def main() -> None:
  parser = argparse.ArgumentParser(
    description=(__doc__ or '').split('\n')[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument('--folder', required=True, help='an empty one, for runs')
  parser.add_argument('--kills', type=int, default=50, help='how often')
  parser.add_argument('--signal', choices=('KILL', 'TERM'), default='KILL')
  parser.add_argument('--run', choices=RUNS, default='var')
  parser.add_argument('--seed', type=int, default=0, help='of the moments')
  args = parser.parse_args()
  folder = pathlib.Path(args.folder).absolute()
  if folder.is_dir() and os.listdir(folder):
    sys.exit(f'--folder={folder} is not empty')
  steps = _STEPS * (args.kills + 1)
  whole = Training(args.run, folder / f'{args.run}-whole', steps)
  if args.run == 'var':
    Training('tokenizer', folder / 'tokenizer-whole', 60).finish()
  whole.finish()
  stopped = dataclasses.replace(whole, folder=folder / f'{args.run}-stopped')
  number = signal.Signals[f'SIG{args.signal}']
  begin = time.perf_counter()
  found = stop_often(stopped, args.kills, number, args.seed)
  stopped.finish()
  seconds = time.perf_counter() - begin
  if differs := difference(whole, stopped):
    sys.exit(f'after {args.kills} stops {differs} differs')
  moments = ', '.join(f'{n} while {m}' for m, n in found.items())
  print(
    f'{args.kills} times SIG{args.signal} ({moments.replace("while saved", "after a save")}) '
    f'in {seconds / 60:.1f} minutes; the run of {steps} steps has the same '
    f'{len(whole.arrays())} arrays and {len(whole.log())} lines of the log'
  )
  print(f'most steps repeated after a regular end: {repeated(stopped)}')
  print(f'sha256 of both: {digest(stopped)}')


if __name__ == '__main__':
  main()
