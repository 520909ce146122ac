"""What commands share: flags, and configs with overrides."""

import argparse
import importlib.util
import inspect
import os
import pathlib
import sys
import textwrap
from collections.abc import Iterable

from absl import flags as absl_flags
from ml_collections import ConfigDict

from arvision.build import ConfigError, broken, did_you_mean, suggest
from arvision.commands.overrides import override


def parser(command: str, doc: str | None) -> argparse.ArgumentParser:
  """A parser of flags.

  Args:
    command: its name.
    doc: docstring of its module.
  """
  return argparse.ArgumentParser(
    prog=f'arvision {command}',
    description=inspect.cleandoc(doc or ''),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def add_config(flags: argparse.ArgumentParser, required: bool = True) -> None:
  """Adds --config and --config.<key>."""
  flags.add_argument(
    '--config',
    required=required,
    metavar='FILE[:ARG]',
    help="a config, as a file or as a name like 'digits/var'; ARG chooses a "
    'variant of it',
  )
  flags.add_argument(
    '--config.KEY',
    metavar='VALUE',
    dest='ignored',
    help='changes a key of the config, --config.optim.learning_rate=3e-4',
  )
  if required:
    names = textwrap.fill(', '.join(config_names()), break_on_hyphens=False)
    flags.epilog = f'configs that are installed:\n{names}'


def parse(
  flags: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace, list[str]]:
  """Flags, and the overrides ('optim.learning_rate=3e-4') among them.

  Raises:
    ConfigError: a flag that the command does not have.
  """
  # Grain and others ask absl for flags of their own.
  absl_flags.FLAGS.mark_as_parsed()
  plain, overrides = split_overrides(argv)
  values, unknown = flags.parse_known_args(plain)
  if unknown:
    names = [
      option
      for action in flags._actions
      for option in action.option_strings
      if option.startswith('--')
    ]
    name = unknown[0].split('=')[0]
    raise ConfigError(f"no flag '{name}'." + suggest(name, names))
  return values, overrides


def split_overrides(argv: Iterable[str]) -> tuple[list[str], list[str]]:
  """['--a', '--config.x=1', '--config.y', '2'] -> ['--a'], ['x=1', 'y=2']."""
  plain, overrides = [], []
  waiting = ''
  for word in argv:
    if waiting:
      overrides.append(f'{waiting}={word}')
      waiting = ''
    elif word.startswith('--config.') and word != '--config.KEY':
      key = word.removeprefix('--config.')
      if '=' in key:
        overrides.append(key)
      else:
        waiting = key
    else:
      plain.append(word)
  if waiting:
    raise ConfigError(f'--config.{waiting}: wanted a value, --config.key=value')
  return plain, overrides


def load_config(name: str, overrides: Iterable[str] = ()) -> ConfigDict:
  """The config that --config names, with overrides, locked.

  Args:
    name: a path or a name in `arvision.configs`, with or without ':arg'. Parts of
      the user's own may lie beside a file, see `find_packages_in`.
    overrides: 'key=value' each, see `override`.

  Raises:
    ConfigError: no such config, variant or key, or a value of another type.
  """
  path, _, arg = name.partition(':')
  file = find_config(path)
  if not file.resolve().is_relative_to(_installed().resolve()):
    find_packages_in(file.parent)
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  if spec is None or spec.loader is None:
    raise ConfigError(f"--config='{name}': wanted a Python file")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as error:  # a config of the user's may raise anything
    raise ConfigError(f"--config='{name}': {broken('it', error)}") from error
  get_config = getattr(module, 'get_config', None)
  if not callable(get_config):
    raise ConfigError(f'{file} has no function get_config, so it is no config')
  try:
    config = get_config(arg) if arg else get_config()
    ignored = arg and config == get_config() and _takes_any(get_config)
  except Exception as error:
    if arg and not inspect.signature(get_config).parameters:
      ignored = True
    elif isinstance(error, ValueError):
      raise ConfigError(f"--config='{name}': {error}") from error
    else:
      raise ConfigError(f"--config='{name}': {broken('it', error)}") from error
  if ignored:
    raise ConfigError(f"--config='{name}': {path} has no variant '{arg}'")
  if not isinstance(config, ConfigDict):
    raise ConfigError(
      f'{file}: get_config() wanted a ConfigDict, got {config!r}'
    )
  return override(config, overrides)


def _takes_any(get_config) -> bool:
  """Whether a config takes a variant that it cannot have, and changes nothing."""
  try:
    return get_config('no such variant') == get_config()
  except Exception:
    return False


def find_packages_in(folder: str | os.PathLike) -> None:
  """Lets packages of the user's be found in a folder.

  It is the last place where Python looks, so that nothing in it stands before
  what is installed. Processes that are started by this one look there too.
  """
  path = str(pathlib.Path(folder).resolve())
  if path not in sys.path:
    sys.path.append(path)


def find_config(name: str) -> pathlib.Path:
  """The file of a config.

  Raises:
    ConfigError: with the nearest configs.
  """
  path = pathlib.Path(name)
  if path.is_file():
    return path
  root = _installed()
  short = name.removeprefix('configs/').removesuffix('.py')
  if (root / f'{short}.py').is_file():
    return root / f'{short}.py'
  near = did_you_mean(short, config_names(), most=5)
  raise ConfigError(
    f"--config='{name}': no such file, and no config of that name.{near} "
    'arvision train --help lists all'
  )


def config_names() -> list[str]:
  """'digits/var', ...: what --config takes, without the fragments beside them."""
  root = _installed()
  return [
    str(p.relative_to(root).with_suffix(''))
    for p in sorted(root.glob('*/*.py'))
    if '\ndef get_config(' in p.read_text(encoding='utf-8')
  ]


def _installed():
  spec = importlib.util.find_spec('arvision.configs')
  assert spec is not None and spec.submodule_search_locations
  return pathlib.Path(next(iter(spec.submodule_search_locations)))
