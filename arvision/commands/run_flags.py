"""What the commands that use a trained run share: flags, the run, its images."""

import argparse
import dataclasses
import re
from typing import Any

import jax
from ml_collections import ConfigDict

from arvision import trust
from arvision.commands import common
from arvision.errors import ConfigError
from arvision.parallel import host
from arvision.parallel.mesh import make_mesh
from arvision.ranges import Guidance, Natural, Seed, Share, Temperature, number
from arvision.runs.trained import TrainedRun, load_run
from arvision.tasks import assemble
from arvision.training import differences

# Blocks that say what the weights are weights of.
_MODEL = ('tokenizer', 'layout', 'feed', 'backbone', 'head', 'condition')
_SAMPLING = ('guidance', 'temperature', 'top_k', 'top_p', 'seed')


def parser(command: str, about: str | None) -> argparse.ArgumentParser:
  """The flags that all commands with a trained run have."""
  flags = common.parser(command, about)
  flags.add_argument(
    '--workdir', required=True, metavar='DIR', help='folder of a trained run'
  )
  common.add_config(flags, required=False)
  flags.add_argument(
    '--allow',
    action='append',
    default=[],
    metavar='PACKAGE',
    help='a package of your own whose classes the run may name; without it, a '
    'run that names others is refused and nothing of them is imported. May be '
    'given several times',
  )
  flags.add_argument(
    '--ema',
    metavar='DECAY',
    help="which running average of the weights, or 'raw' for the weights "
    'themselves; default: the slowest average',
  )
  flags.add_argument(
    '--step',
    type=lambda text: text if text == 'best' else number(Natural)(text),
    help="of the checkpoint, or 'best' for that of config.checkpoint.best; "
    'default: the newest',
  )
  flags.add_argument(
    '--mesh',
    default='data=-1',
    metavar='AXIS=N,...',
    help='of the devices of a process, as in config.mesh; default: all of them '
    'share the images (data=-1), and every one holds all weights',
  )
  return flags


def open_run(
  flags: argparse.ArgumentParser, argv: list[str], several: bool = False
) -> tuple[argparse.Namespace, TrainedRun]:
  """Parses a command line and opens the run that it names.

  Without --config the run's own is taken; --config.<key> changes either.

  Args:
    flags: of the command.
    argv: the command line.
    several: whether processes may share the work of the command.

  Raises:
    ConfigError: no run there, or one of another model than --config.
    DataError: no checkpoint that can be read.
  """
  values, overrides = common.parse(flags, argv)
  host.use_compilation_cache()
  if several:
    host.initialize()
  mesh = make_mesh(mesh_sizes(values.mesh), jax.local_devices())
  allow, config = trust.packages(values.allow), None
  if allow:
    common.find_packages_in('.')
  if values.config:
    config = common.load_config(values.config, overrides)
    # What the user's own config names is known to the user.
    allow += trust.foreign(config)
  run = load_run(values.workdir, values.ema, values.step, mesh, allow, host.say)
  if config is None:
    config = common.override(run.config, overrides)
  return values, with_config(run, config, values.workdir)


def mesh_sizes(text: str) -> dict[str, int]:
  """'data=2,fsdp=4' -> {'data': 2, 'fsdp': 4}.

  Raises:
    ConfigError: not of that form.
  """
  if not re.fullmatch(r'\w+=-?\d+(,\w+=-?\d+)*', text):
    raise ConfigError(f"--mesh='{text}': wanted axes and sizes, data=2,fsdp=4")
  parts = (part.split('=') for part in text.split(','))
  return {axis: int(size) for axis, size in parts}


def with_config(
  run: TrainedRun, config: ConfigDict, workdir: str
) -> TrainedRun:
  """A run with data, sampler, release and evaluators of another config.

  A tokenizer's run takes the data of a generator's config too.

  Raises:
    ConfigError: a config of another model; the keys that differ.
  """
  blocks = _MODEL if run.model is not None else _MODEL[:1]
  lines = []
  for name in blocks:
    there, here = run.config.get(name), config.get(name)
    if there is None or here is None:
      if there is not here:
        lines.append(f'  config.{name}: only one of the two has it')
      continue
    lines += differences.other_weights(there, here, name)
  if lines:
    raise ConfigError(
      f"--workdir='{workdir}' holds the run of another model than --config:\n"
      + '\n'.join(lines)
      + '\nLeave these out to use the config of the run'
    )
  mixed = ConfigDict(run.config)
  with mixed.unlocked():
    for name in (*blocks, 'data', 'sampler', 'release', 'evals'):
      if name in config:
        mixed[name] = config[name]
  changed: dict[str, Any] = {'config': mixed}
  if any(
    differences.differences(run.config[name], mixed[name])
    for name in blocks
    if name in mixed
  ):
    changed['tokenizer'] = assemble.make_tokenizer(mixed)
    if run.model is not None:
      changed['model'] = assemble.make_model(mixed)
  return dataclasses.replace(run, **changed)


def add_sampling(flags: argparse.ArgumentParser) -> None:
  """The flags of how a generator draws."""
  group = flags.add_argument_group(
    'sampling', 'what is left out is as in config.sampler'
  )
  group.add_argument(
    '--guidance',
    type=number(Guidance),
    help='largest guidance scale; 1 is none',
  )
  group.add_argument(
    '--temperature',
    type=number(Temperature),
    help='divides the logits; 0 takes the best',
  )
  group.add_argument(
    '--top_k',
    type=number(Natural),
    help='draw from the k best tokens; 0 is all',
  )
  group.add_argument(
    '--top_p',
    type=number(Share),
    help='draw from the fewest tokens with this much probability; 1 is all',
  )
  group.add_argument(
    '--seed',
    type=number(Seed),
    default=0,
    help='the same seed gives the same images',
  )


def sampling(flags: argparse.Namespace) -> dict[str, Any]:
  """The arguments of `Run.sample_fn` that the flags give."""
  return {name: getattr(flags, name) for name in _SAMPLING}


def weights_of(run: TrainedRun) -> str:
  """Which weights a run was opened with, in words."""
  step = f'step {run.step:,}' if run.step else 'the import'
  if run.ema == 'raw':
    return f'the weights of {step} themselves'
  return f'the average with decay {run.ema} of {step}'
