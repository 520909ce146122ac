"""Trains and evaluates the points of a sweep, and writes a table of them.

    arvision sweep --config=ablations/orders --seeds=0,1 --workdir=runs/orders
    arvision sweep --config=var/digits --workdir=runs/rates \\
      --sweep=optim.learning_rate=1e-3,3e-3

The points are those of `get_sweep()` in the config module, or of --sweep flags.
Complete runs are not run again: the same command goes on after an interruption.
"""

import argparse
import pathlib
import shlex
import signal
import sys

import jax

from arvision.commands import common
from arvision.commands import eval as evaluation
from arvision.errors import ConfigError
from arvision.ranges import Count, Seed, number
from arvision.runs import targets
from arvision.sweeps import devices, points, remote, results, status, study
from arvision.sweeps.pool import Pool
from arvision.sweeps.runs import Runs


def main(argv: list[str]) -> int:
  """`arvision sweep`: fills --workdir.

  Returns:
    The exit code: 0; 1 where a run failed; 130 where it was interrupted.
  """
  flags, overrides = common.parse(parser(), argv)
  _check(flags)
  # The processes of the runs need the accelerators.
  jax.config.update('jax_platforms', 'cpu')
  root = pathlib.Path(flags.workdir)
  targets.check_folder(root)
  runs = Runs(root)
  swept = _study(flags, overrides)
  configs = study.check(swept, runs, common.load_config)
  jobs = study.jobs(swept, runs)
  if flags.results:
    return _results(swept, runs, argv)
  if flags.slurm is not None:
    left = [job for job in jobs if runs.missing(job)]
    texts = remote.scripts(runs, left, _slurm_of(flags), root / 'logs')
    if flags.dry_run or not texts:
      print('\n'.join(texts) or 'every run is complete')
      return 0
    remote.check()
    _begin(swept, runs, jobs, configs)
    numbers = ', '.join(remote.submit(texts))
    print(f'queued as {numbers}; afterwards, --results writes the table')
    return 0
  if flags.tpu is not None:
    lines = remote.tpu_lines(runs, jobs, _words(flags.tpu, '--tpu'), 'sweep')
    print('\n'.join(lines))
    return 0
  shares = devices.shares(min(flags.jobs, len(jobs)), _list(flags.devices))
  if flags.dry_run:
    print(_commands(runs, jobs))
    return 0
  _begin(swept, runs, jobs, configs)
  shown = status.console(jobs, root / 'logs')
  return _run(swept, Pool(runs, jobs, shown, shares), runs, shown, argv)


def _begin(swept, runs, jobs, configs):
  """Writes the record of the sweep and makes the folder of its logs."""
  with targets.writing(runs.root):
    (runs.root / 'logs').mkdir(parents=True, exist_ok=True)
    study.begin(swept, runs, jobs, configs)


def _check(flags):
  if '://' in flags.workdir:
    raise ConfigError(
      f"--workdir='{flags.workdir}': wanted a folder, got a URL; a sweep writes "
      'to a folder of this machine'
    )
  if flags.slurm is not None and flags.tpu is not None:
    raise ConfigError('wanted --slurm or --tpu, not both')
  if flags.tpu is not None and not flags.dry_run:
    raise ConfigError(
      '--tpu prints the command lines of the slices and starts none; add '
      '--dry_run'
    )


def _study(flags, overrides):
  """The sweep of a command line."""
  if flags.sweep:
    found = points.quick(flags.sweep)
  else:
    found = common.load_sweep(flags.config)
  text = flags.eval.strip()
  return study.Study(
    flags.config,
    tuple(overrides),
    tuple(found),
    _seeds(flags.seeds),
    None if text == 'none' else _evaluation(text),
  )


def _evaluation(text):
  """The flags of --eval, checked before anything is trained."""
  words = _words(text, '--eval')
  try:
    common.parse(evaluation.parser(), ['--workdir=DIR', *words])
  except ConfigError as error:
    raise ConfigError(f"--eval='{text}': {error}") from error
  return tuple(words)


def _seeds(text):
  try:
    seeds = [number(Seed)(part.strip()) for part in text.split(',')]
  except argparse.ArgumentTypeError as error:
    raise ConfigError(f'--seeds{error}') from error
  if len({*seeds}) < len(seeds):
    raise ConfigError(f"--seeds='{text}': wanted different seeds")
  return tuple(seeds)


def _words(text, flag):
  try:
    return shlex.split(text)
  except ValueError as error:
    raise ConfigError(f"{flag}='{text}': {error}") from error


def _list(text):
  return [part.strip() for part in text.split(',') if part.strip()]


def _commands(runs, jobs):
  """The command lines that are left, and what is complete."""
  lines = []
  for job in jobs:
    left = runs.missing(job)
    if not left:
      lines.append(f'# {job.name} is complete')
    lines += [f'arvision {shlex.join(step.words)}' for step in left]
  return '\n'.join(lines)


def _run(swept, pool, runs, shown, argv):
  """Runs the jobs here, and writes the table."""
  again = f'arvision sweep {shlex.join(argv)}'
  try:
    pool.run()
  except KeyboardInterrupt:
    shown.close()
    print(f'stopped; trainings are saved. To go on:\n  {again}')
    return 128 + signal.SIGINT
  finally:
    shown.close()
  if results.variants(swept, runs):
    _results(swept, runs, argv)
  for name, why in pool.failed.items():
    print(f'{name}: {why}; see {shown.log(name)}', file=sys.stderr)
  if pool.failed:
    print(f'to try these again:\n  {again}', file=sys.stderr)
    return 1
  return 0


def _results(swept, runs, argv):
  """Writes the table of the runs that are complete."""
  found = results.variants(swept, runs)
  if not found:
    raise ConfigError(f"--workdir='{runs.root}' has no complete run yet")
  command = f'arvision sweep {shlex.join(argv)}'
  files = results.write(swept, found, runs.root, command)
  print('\n'.join(map(str, files)))
  return 0


def _slurm_of(flags):
  """The flags of --slurm."""
  known = common.Flags(prog='--slurm', add_help=False, allow_abbrev=False)
  for name, default in vars(remote.Slurm()).items():
    if name != 'at_once':
      kind = number(Count) if isinstance(default, int) else str
      known.add_argument(f'--{name}', type=kind, default=default)
  try:
    values = known.parse_args(_words(flags.slurm, '--slurm'))
  except ConfigError as error:
    raise ConfigError(f"--slurm='{flags.slurm}': {error}") from error
  at_once = flags.jobs if flags.jobs > 1 else 0
  return remote.Slurm(**vars(values), at_once=at_once)


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('sweep', __doc__)
  common.add_config(flags)
  flags.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='folder of the sweep: a folder for every run, and the tables',
  )
  flags.add_argument(
    '--sweep',
    action='append',
    default=[],
    metavar='KEY=A,B,...',
    help='values of a key of the config, instead of get_sweep(); the key '
    "'variant' is the variant of the config. Repeat the flag for several keys; "
    'all combinations are points',
  )
  flags.add_argument(
    '--seeds',
    default='0',
    metavar='LIST',
    help='seeds of points that state none, separated by commas (0)',
  )
  flags.add_argument(
    '--eval',
    default='',
    metavar='FLAGS',
    help="flags of `arvision eval` in quotes, '--samples=1000'; 'none' trains "
    'only',
  )
  flags.add_argument(
    '--jobs',
    type=number(Count),
    default=1,
    metavar='N',
    help='runs at once: they share the accelerators, or the cores, of this '
    'machine (1)',
  )
  flags.add_argument(
    '--devices',
    default='',
    metavar='LIST',
    help='numbers of the accelerators to use; default: all',
  )
  flags.add_argument(
    '--dry_run',
    action='store_true',
    help='print the command lines that are left and run nothing',
  )
  flags.add_argument(
    '--results',
    action='store_true',
    help='write the table of the runs that are complete and run nothing',
  )
  flags.add_argument(
    '--slurm',
    metavar='FLAGS',
    help='queue the runs as an array job of SLURM, --jobs of them at once; '
    "flags of launch/slurm.sh in quotes, '--gpus=4 --time=12:00:00'",
  )
  flags.add_argument(
    '--tpu',
    metavar='FLAGS',
    help='with --dry_run: print the lines that train every run on a TPU slice; '
    'flags of launch/tpu_pod.sh in quotes',
  )
  return flags
