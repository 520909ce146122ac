"""Flags of the commands that use a trained run, and loading of the run."""

import argparse
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from arvision import trust
from arvision.build import suggest
from arvision.commands import common
from arvision.commands.overrides import override
from arvision.errors import ConfigError
from arvision.evals.extractors import NAMES, extractor_of
from arvision.evals.features import Extractor
from arvision.parallel import host
from arvision.parallel.mesh import make_mesh
from arvision.ranges import Guidance, Natural, Seed, Share, Temperature, number
from arvision.runs.trained import TrainedRun, load_run
from arvision.tasks import assemble
from arvision.training import differences

# Blocks that the weights depend on.
_MODEL = ('tokenizer', 'layout', 'feed', 'backbone', 'head', 'condition')
_SAMPLING = ('guidance', 'temperature', 'top_k', 'top_p', 'seed')
# Flags of --sweep, those that choose the weights first.
_SWEPT = ('ema', 'step', *_SAMPLING)
# Most combinations of a sweep.
_MOST = 1000


def add_allow(flags: argparse.ArgumentParser) -> None:
  """Adds --allow."""
  flags.add_argument(
    '--allow',
    action='append',
    default=[],
    metavar='PACKAGE',
    help='a package of your own whose classes the run may name; runs that name '
    'other packages are refused. Repeat the flag for several packages',
  )


def parser(
  command: str, about: str | None, required: bool = True
) -> argparse.ArgumentParser:
  """The flags of all commands that use a trained run.

  Args:
    command: name of the command.
    about: docstring of its module.
    required: whether --workdir must be given.
  """
  flags = common.parser(command, about)
  flags.add_argument(
    '--workdir',
    required=required,
    metavar='DIR',
    help='folder of a trained run',
  )
  common.add_config(flags, required=False, note='; default: that of the run')
  add_allow(flags)
  flags.add_argument(
    '--ema',
    metavar='DECAY',
    help="decay of a running average of the weights, or 'raw' for the weights "
    'themselves; default: the slowest average',
  )
  flags.add_argument(
    '--step',
    type=lambda text: text if text == 'best' else number(Natural)(text),
    help="step of the checkpoint, or 'best' for the best by "
    'config.checkpoint.best; default: the newest',
  )
  flags.add_argument(
    '--mesh',
    default='data=-1',
    metavar='AXIS=N,...',
    help='mesh of the devices of a process, as in config.mesh (data=-1: all of '
    'them share the images, and every one holds all weights)',
  )
  return flags


def open_run(
  flags: argparse.ArgumentParser, argv: list[str], several: bool = False
) -> tuple[argparse.Namespace, TrainedRun]:
  """Parses a command line and loads the run that it names.

  The config is --config, or that of the run; --config.<key> overrides either.

  Args:
    flags: flag parser of the command.
    argv: the command line.
    several: whether several processes may share the work of the command.

  Returns:
    the values of the flags, and the run.

  Raises:
    ConfigError: no run, or a run of another model than --config.
    DataError: no checkpoint can be read.
  """
  values, overrides = common.parse(flags, argv)
  return values, load(values, overrides, several)


def load(
  values: argparse.Namespace, overrides: list[str], several: bool = False
) -> TrainedRun:
  """Loads the run of a parsed command line, see `open_run`."""
  host.use_compilation_cache()
  if several:
    host.initialize()
  mesh = make_mesh(mesh_sizes(values.mesh), jax.local_devices())
  allow, config = trust.packages(values.allow), None
  if allow:
    common.find_packages_in('.')
  if values.config:
    config = common.load_config(values.config, overrides)
    # The user's own config may name any package.
    allow += trust.foreign(config)
  run = load_run(values.workdir, values.ema, values.step, mesh, allow, host.say)
  if config is None:
    config = override(run.config, overrides)
  return with_config(run, config, values.workdir)


def mesh_sizes(text: str) -> dict[str, int]:
  """Parses --mesh: 'data=2,fsdp=4' -> {'data': 2, 'fsdp': 4}.

  Raises:
    ConfigError: the text has another form.
  """
  if not re.fullmatch(r'\w+=-?\d+(,\w+=-?\d+)*', text):
    raise ConfigError(f"--mesh='{text}': wanted axes and sizes, data=2,fsdp=4")
  parts = (part.split('=') for part in text.split(','))
  return {axis: int(size) for axis, size in parts}


def with_config(
  run: TrainedRun, config: ConfigDict, workdir: str
) -> TrainedRun:
  """A run with data, sampler, release and evaluators of another config.

  Args:
    run: the run.
    config: config of the same model; a tokenizer's run also takes the config of
      a generator with this tokenizer.
    workdir: folder of the run, for errors.

  Raises:
    ConfigError: the config is of another model; with the keys that differ.
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
      + '\nRemove these keys to use the values of the run'
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
  """Adds the sampling flags."""
  group = flags.add_argument_group(
    'sampling', 'the defaults are those of config.sampler'
  )
  group.add_argument(
    '--guidance',
    type=number(Guidance),
    help='largest guidance scale; 1 is no guidance',
  )
  group.add_argument(
    '--temperature',
    type=number(Temperature),
    help='temperature of the logits; 0 is greedy',
  )
  group.add_argument(
    '--top_k',
    type=number(Natural),
    help='sample from the k likeliest tokens; 0 is all',
  )
  group.add_argument(
    '--top_p',
    type=number(Share),
    help='sample from the likeliest tokens of this probability; 1 is all',
  )
  group.add_argument(
    '--seed',
    type=number(Seed),
    default=0,
    help='the same seed gives the same images (0)',
  )


def sampling(flags: argparse.Namespace) -> dict[str, Any]:
  """The arguments of `TrainedRun.sample_fn` that the flags set."""
  return {name: getattr(flags, name) for name in _SAMPLING}


def add_sweep(flags: argparse.ArgumentParser) -> None:
  """Adds --sweep."""
  flags.add_argument(
    '--sweep',
    action='append',
    default=[],
    metavar='KEY=A,B,...',
    help='several values of a flag: ' + ', '.join(_SWEPT) + '. Repeat the flag '
    'for several keys; all combinations are evaluated',
  )


def sweep(
  flags: argparse.ArgumentParser, texts: Sequence[str]
) -> dict[str, list[Any]]:
  """The values of --sweep by key, those that choose the weights first.

  Raises:
    ConfigError: an unknown key, or a value that its flag would not take.
  """
  found: dict[str, list[Any]] = {}
  for text in texts:
    key, equals, values = text.partition('=')
    if key not in _SWEPT:
      raise ConfigError(
        f"--sweep='{text}': no key {key!r}.{suggest(key, _SWEPT)}"
      )
    if key in found:
      raise ConfigError(f'--sweep={key}: wanted once, with all its values')
    parts = list(dict.fromkeys(part.strip() for part in values.split(',')))
    if not equals or '' in parts:
      raise ConfigError(f"--sweep='{text}': wanted {key}=A,B,...")
    read = [flags.parse_known_args([f'--{key}={part}'])[0] for part in parts]
    found[key] = [getattr(one, key) for one in read]
  if math.prod(map(len, found.values())) > _MOST:
    raise ConfigError(f'--sweep: more than {_MOST} combinations')
  return {key: found[key] for key in _SWEPT if key in found}


def add_network(flags: Any, required: bool = False) -> None:
  """Adds --extractor."""
  flags.add_argument(
    '--extractor',
    required=required,
    default='',
    metavar='NAME:FILE',
    help='network of the features with its weights: '
    + ', '.join(NAMES)
    + ', or the import path of a class of your own',
  )


def network(text: str) -> tuple[Extractor, dict[str, Any]]:
  """The network of --extractor, see `extractors.extractor_of`."""
  if '.' in text.partition(':')[0]:
    common.find_packages_in('.')
  return extractor_of(text)


def output_name(name: str, default: str) -> str:
  """The value of --name, or a default.

  Raises:
    ConfigError: it cannot be the name of a folder.
  """
  name = name or default
  if not re.fullmatch(r'\w[\w.+=-]*', name):
    raise ConfigError(f"--name='{name}': wanted letters, digits, '-' and '_'")
  return name


def weights_of(run: TrainedRun) -> str:
  """Words for the weights that a run was loaded with."""
  step = f'step {run.step:,}' if run.step else 'the import'
  if run.ema == 'raw':
    return f'the weights of {step} themselves'
  return f'the average with decay {run.ema} of {step}'
