"""Trains a tokenizer or a generator, or resumes a stopped run.

    arvision train --config=var/digits_tokenizer \\
      --workdir=runs/var/digits_tokenizer
    arvision train --config=var/digits --workdir=runs/var/digits \\
      --config.optim.learning_rate=3e-4

The same command resumes a run that was stopped; --max_restarts=5 does so by itself
after a crash. --dry_run prints the config and
what the run would do.
"""

import argparse

from arvision.commands import common
from arvision.errors import ConfigError
from arvision.parallel import host
from arvision.ranges import Count, Natural, number
from arvision.runs import remote, targets
from arvision.training import profile


def main(argv: list[str]) -> int:
  """`arvision train`: fills --workdir.

  Returns:
    The exit code: 0, or 128 + the signal that stopped it, so that a scheduler
    knows to start it again.
  """
  flags, overrides = common.parse(parser(), argv)
  if flags.init_partial and not flags.init_from:
    raise ConfigError('--init_partial needs --init_from')
  profiled = profile.parse(flags.profile) if flags.profile else None
  config = common.load_config(flags.config, overrides)
  targets.check_folder(flags.workdir)
  if flags.max_restarts and not flags.dry_run:
    from arvision.runs import supervise

    return supervise.again(
      _without(argv, '--max_restarts'), flags.workdir, flags.max_restarts
    )
  host.use_compilation_cache()
  host.initialize()
  remote.check_processes(flags.workdir)
  # Imported after `initialize`, since they may query devices.
  from arvision.runs import dry_run
  from arvision.runs.train import train

  if flags.dry_run:
    text = dry_run.plan(
      config,
      flags.workdir,
      init_from=flags.init_from,
      resume_from=flags.resume_from,
      change=flags.change,
      stop_at=flags.stop_at,
    )
    host.say(text)
    return 0
  with targets.filling(flags.workdir):
    result = train(
      config,
      flags.workdir,
      init_from=flags.init_from,
      init_partial=flags.init_partial,
      resume_from=flags.resume_from,
      change=flags.change,
      stop_at=flags.stop_at,
      profile=profiled,
    )
  if result.step == result.total:
    host.say(f'trained {result.total} steps; results in {flags.workdir}')
    return 0
  host.say(
    f'stopped and saved after step {result.step} of {result.total}; the same '
    'command resumes from there'
  )
  return 128 + result.signal if result.signal else 0


def _without(argv, flag):
  """The words of a command line without a flag and its value."""
  words, found = iter(argv), []
  for word in words:
    if word == flag:
      next(words, None)
    elif not word.startswith(f'{flag}='):
      found.append(word)
  return found


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('train', __doc__)
  common.add_config(flags)
  flags.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='folder of the run, also as a URL (gs://, s3://); a run with a '
    'checkpoint is resumed',
  )
  flags.add_argument(
    '--dry_run',
    action='store_true',
    help='check everything up to the first step, print the whole config and what '
    'the run would do, and write nothing',
  )
  flags.add_argument(
    '--init_from',
    metavar='DIR',
    help='initialise the weights from this run (the raw weights, not their '
    'running averages)',
  )
  flags.add_argument(
    '--init_partial',
    action='store_true',
    help='with --init_from: load arrays with matching names and shapes, and '
    'start the others fresh',
  )
  flags.add_argument(
    '--resume_from',
    metavar='DIR',
    help='resume from the newest checkpoint of this run of the same config, '
    'but write to --workdir',
  )
  flags.add_argument(
    '--change',
    action='store_true',
    help='resume although batch size, learning rate, schedule, weight decay or '
    'clipping have changed',
  )
  flags.add_argument(
    '--stop_at',
    type=number(Count),
    metavar='STEP',
    help='stop and save after this step',
  )
  flags.add_argument(
    '--max_restarts',
    type=number(Natural),
    default=0,
    metavar='N',
    help='start again after a crash, until N starts in a row have added no '
    'checkpoint; every host does so for its own process (0: never)',
  )
  flags.add_argument(
    '--profile',
    metavar='FIRST:LAST',
    help='write a profile of these steps to tensorboard/ in the workdir, for '
    'XProf and TensorBoard, such as 100:105',
  )
  return flags
