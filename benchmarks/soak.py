"""Stops a training again and again, and compares it with one that is not stopped.

    python -m benchmarks.soak --kills=50 --terms=10 --folder=/tmp/soak
    python -m benchmarks.soak --minutes=60 --rate=20 --folder=/tmp/goodput

Trains a small generator, or its tokenizer, on digits. A process is stopped at a
random moment: while it trains, while it saves, or after a save. All arrays of the
last checkpoint and all logged values must have the same bits as those of the
undisturbed run, and a SIGTERM may cost one step at most.

With --minutes it kills a run that starts again by itself, so many times an hour,
and prints the goodput line of that run. Its steps take a second or more.
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
from collections.abc import Mapping, Sequence
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
# A run whose steps take a second or more, and that chooses when it saves.
SLOW = (
  '--config=var/digits',
  *_TOKENIZER,
  '--config.data.batch_size=384',
  '--config.train.duration.steps=1000000',
  '--config.optim.schedule.warmup.steps=20',
  '--config.log.every.steps=10',
)
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
  training: Training, numbers: Sequence[int], seed: int
) -> dict[str, int]:
  """Stops a training some times; it is not complete then.

  Args:
    training: the training.
    numbers: the signals, in order.
    seed: of the moments.

  Returns:
    moment -> how often it was stopped then.

  Raises:
    RuntimeError: a process ended in another way, or without its last step.
  """
  chance = random.Random(f'{training.name} {seed}')
  found = dict.fromkeys(MOMENTS, 0)
  for number in numbers:
    moment = chance.choice(MOMENTS)
    code = training.stop(number, moment, chance)
    wanted = -number if number == signal.SIGKILL else 128 + number
    last = (training.events() or [{'event': '', 'step': 0}])[-1]
    # Before its first step a training ends at once, with nothing to save.
    early = code == -number and last['event'] == 'start'
    if code != wanted and not early:
      raise RuntimeError(
        f'{training.folder}: wanted the exit code {wanted}, got {code} at step '
        f'{training.newest} of {training.steps}'
      )
    if number != signal.SIGKILL and training.newest != last['step']:
      raise RuntimeError(
        f'{training.folder}: ended at step {last["step"]} with a checkpoint of '
        f'step {training.newest}'
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


def goodput(folder: pathlib.Path, minutes: float, rate: float, seed: int):
  """Kills a supervised training at random moments, and ends it with SIGTERM.

  Its output goes to the console, with the line about its goodput.

  Args:
    folder: has the tokenizer, and gets the run.
    minutes: how long it runs.
    rate: kills per hour.
    seed: of the moments.
  """
  chance = random.Random(seed)
  run = Training('var', folder / 'var-goodput', 0)
  words = (
    *(sys.executable, '-m', 'arvision', 'train', *SLOW),
    f'--workdir={run.folder}',
    f'--config.frozen.tokenizer={folder / "tokenizer-whole"}',
    f'--config.checkpoint.hours_between_failures={1 / rate}',
    '--max_restarts=5',
  )
  supervisor = subprocess.Popen(words, cwd=ROOT)
  end = time.monotonic() + 60 * minutes
  kills = 0
  while True:
    pause = chance.expovariate(rate / 3600)
    time.sleep(max(0.0, min(pause, end - time.monotonic())))
    if time.monotonic() >= end:
      break
    for child in _children(supervisor.pid):
      os.kill(child, signal.SIGKILL)
      kills += 1
  supervisor.terminate()
  code = supervisor.wait()
  starts = sum(e['event'] == 'start' for e in run.events())
  print(
    f'{kills} kills in {minutes:g} minutes, {starts} starts, exit code {code}'
  )


def _children(pid):
  path = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
  return [int(child) for child in path.read_text().split()]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=(__doc__ or '').split('\n')[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument('--folder', required=True, help='an empty one, for runs')
  parser.add_argument('--kills', type=int, default=50, help='SIGKILLs')
  parser.add_argument('--terms', type=int, default=0, help='SIGTERMs')
  parser.add_argument('--minutes', type=float, help='measure goodput so long')
  parser.add_argument('--rate', type=float, default=20, help='kills per hour')
  parser.add_argument('--run', choices=RUNS, default='var')
  parser.add_argument('--seed', type=int, default=0, help='of the moments')
  args = parser.parse_args()
  folder = pathlib.Path(args.folder).absolute()
  if folder.is_dir() and os.listdir(folder):
    sys.exit(f'--folder={folder} is not empty')
  stops = args.kills + args.terms
  steps = _STEPS * (stops + 1)
  whole = Training(args.run, folder / f'{args.run}-whole', steps)
  if args.run == 'var' or args.minutes:
    Training('tokenizer', folder / 'tokenizer-whole', 60).finish()
  if args.minutes:
    goodput(folder, args.minutes, args.rate, args.seed)
    return
  whole.finish()
  stopped = dataclasses.replace(whole, folder=folder / f'{args.run}-stopped')
  numbers = [signal.SIGKILL] * args.kills + [signal.SIGTERM] * args.terms
  random.Random(args.seed).shuffle(numbers)
  begin = time.perf_counter()
  found = stop_often(stopped, numbers, args.seed)
  stopped.finish()
  seconds = time.perf_counter() - begin
  if differs := difference(whole, stopped):
    sys.exit(f'after {stops} stops {differs} differs')
  moments = ', '.join(f'{n} while {m}' for m, n in found.items())
  print(
    f'{args.kills} times SIGKILL, {args.terms} times SIGTERM '
    f'({moments.replace("while saved", "after a save")}) in {seconds / 60:.1f} minutes; the run of {steps} steps has the same '
    f'{len(whole.arrays())} arrays and {len(whole.log())} lines of the log'
  )
  print(f'most steps repeated after a regular end: {repeated(stopped)}')
  print(f'sha256 of both: {digest(stopped)}')


if __name__ == '__main__':
  main()
