"""What the commands that use a trained run share: flags, the run, its images."""

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags

from arvision.build import ConfigError, build
from arvision.data.base import Data
from arvision.data.latents import CachedTokens
from arvision.training import workdir as workdirs
from arvision.training.trained import TrainedRun, load_run

# Blocks that say what the weights are weights of.
_MODEL = ('tokenizer', 'layout', 'feed', 'backbone', 'head', 'condition')
_SAMPLING = ('guidance', 'temperature', 'top_k', 'top_p', 'seed')


def parser(command: str, about: str) -> argparse.ArgumentParser:
  """The flags that all commands with a trained run have."""
  flags = argparse.ArgumentParser(
    prog=f'arvision {command}',
    description=about,
    allow_abbrev=False,
    epilog='--config.<key>=<value> changes a key of --config.',
  )
  flags.add_argument(
    '--workdir', required=True, metavar='DIR', help='folder of a trained run'
  )
  flags.add_argument(
    '--config',
    metavar='FILE',
    help='config to take data and sampler from; default: the config of the run',
  )
  flags.add_argument(
    '--ema',
    metavar='DECAY',
    help="which running average of the weights, or 'raw' for the weights "
    'themselves; default: the first average',
  )
  flags.add_argument(
    '--step', type=int, help='of the checkpoint; default: the newest'
  )
  return flags


def open_run(
  flags: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace, TrainedRun]:
  """Parses a command line and opens the run that it names.

  Raises:
    ConfigError: no run there, or one of another model than --config.
    DataError: no checkpoint that can be read.
    SystemExit: unknown or missing flags.
  """
  known, rest = flags.parse_known_args(argv)
  strange = [a for a in rest if not a.startswith('--config.')]
  if strange or (rest and not known.config):
    flags.error(
      f'unknown: {" ".join(strange)}'
      if strange
      else f'{rest[0]} changes a key of --config=FILE; name that file too'
    )
  run = load_run(known.workdir, known.ema, known.step)
  if not known.config:
    return known, run
  config = read_config(known.config, rest)
  return known, with_config(run, config, known.workdir)


def read_config(file: str, changes: list[str]) -> ConfigDict:
  """The config of a file, with --config.<key>=<value> applied."""
  values = absl_flags.FlagValues()
  config_flags.DEFINE_config_file(
    'config', lock_config=True, flag_values=values
  )
  values(['arvision', f'--config={file}', *changes])
  return values['config'].value


def with_config(
  run: TrainedRun, config: ConfigDict, workdir: str
) -> TrainedRun:
  """A run with data and sampler of another config.

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
    lines += workdirs.differences(there, here, f'config.{name}')
  if lines:
    raise ConfigError(
      f"--workdir='{workdir}' holds the run of another model than --config:\n"
      + '\n'.join(lines)
      + '\nLeave out --config to use the config of the run'
    )
  mixed = ConfigDict(run.config)
  with mixed.unlocked():
    for name in ('data', 'sampler'):
      if name in config:
        mixed[name] = config[name]
  return dataclasses.replace(run, config=mixed)


def add_sampling(flags: argparse.ArgumentParser) -> None:
  """The flags of how a generator draws."""
  group = flags.add_argument_group(
    'sampling', 'what is left out is as in config.sampler'
  )
  group.add_argument(
    '--guidance', type=float, help='largest guidance scale; 1 is none'
  )
  group.add_argument(
    '--temperature', type=float, help='divides the logits; 0 takes the best'
  )
  group.add_argument(
    '--top_k', type=int, help='draw from the k best tokens; 0 is all'
  )
  group.add_argument(
    '--top_p',
    type=float,
    help='draw from the fewest tokens with this much probability; 1 is all',
  )
  group.add_argument(
    '--seed', type=int, default=0, help='the same seed gives the same images'
  )


def sampling(flags: argparse.Namespace) -> dict[str, Any]:
  """The arguments of `Run.sample_fn` that the flags give."""
  return {name: getattr(flags, name) for name in _SAMPLING}


def images_of(run: TrainedRun) -> tuple[Data, dict[str, Any]]:
  """The images that a run learnt from, and the block that describes them.

  A generator that was trained on cached tokens gets the images that these
  tokens were made of.

  Raises:
    ConfigError: tokens that do not say what they were made of.
  """
  data = run.data
  if not isinstance(data, CachedTokens):
    return data, plain(run.config.data)
  block = data.spec.get('data')
  if not block:
    raise ConfigError(
      f"config.data.path='{data.path}' holds tokens and its spec.json no "
      "'data' that says which images they are of; give a config with these "
      'images by --config'
    )
  return build(block, 'data'), dict(block)


def plain(block: Mapping) -> dict[str, Any]:
  """A block of a config as plain values."""
  return {k: plain(v) if hasattr(v, 'items') else v for k, v in block.items()}


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file, whole or not at all."""
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  partial.write_text(text, encoding='utf-8')
  partial.replace(path)
