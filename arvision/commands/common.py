"""Flags of commands, and configs with overrides."""

import argparse
import importlib.util
import inspect
import os
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import NoReturn

from absl import flags as absl_flags
from ml_collections import ConfigDict

from arvision import catalog
from arvision.errors import ConfigError, broken, suggest
from arvision.sweeps import points

# Flags of all commands stand last in a help text.
_LAST = ('--debug', '--help')


class Flags(argparse.ArgumentParser):
  """An argument parser that raises ConfigError instead of exiting.

  Its help begins with what is required, and with an example.
  """

  def error(self, message: str) -> NoReturn:
    """Raises ConfigError, with text such as '--number: wanted 1 or more'."""
    raise ConfigError(
      re.sub(r'^argument (\S+?): (?==)|^argument ', r'\1', message)
    )

  def format_help(self) -> str:
    """The help text; its first line names what is required."""
    needed = [_shown(action) for action in self._actions if action.required]
    self.usage = ' '.join([self.prog, *needed, '[flags]'])
    self._optionals.title = 'flags'
    self._positionals.title = 'arguments'
    self._optionals._group_actions.sort(key=_place)
    return super().format_help()


def _shown(action: argparse.Action) -> str:
  """A required flag or argument as on a command line."""
  value = action.metavar or '|'.join(action.choices or [action.dest.upper()])
  return (
    f'{action.option_strings[-1]}={value}'
    if action.option_strings
    else (str(value))
  )


def _place(action: argparse.Action) -> int:
  last = any(option in _LAST for option in action.option_strings)
  return 2 if last else not action.required


def parser(command: str, doc: str | None) -> argparse.ArgumentParser:
  """The flag parser of a command.

  Args:
    command: name of the command.
    doc: docstring of its module, for the help text.
  """
  flags = Flags(
    prog=f'arvision {command}',
    description=(doc or '').strip(),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  flags.add_argument(
    '--debug', action='store_true', help='show the traceback of an error'
  )
  return flags


def add_config(
  flags: argparse.ArgumentParser, required: bool = True, note: str = ''
) -> None:
  """Adds --config and --config.<key>; `note` ends the help text of --config."""
  flags.add_argument(
    '--config',
    required=required,
    metavar='FILE[:ARG]',
    help="a config file, or the name of a config such as 'var/digits'; ARG "
    f'chooses a variant{note}',
  )
  flags.add_argument(
    '--config.KEY',
    metavar='VALUE',
    dest='ignored',
    help='set a key of the config, --config.optim.learning_rate=3e-4',
  )
  flags.epilog = (
    'arvision configs lists the installed configs, arvision config NAME prints '
    'every key of one'
  )


def parse(
  flags: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace, list[str]]:
  """Parses a command line.

  Args:
    flags: flag parser of the command.
    argv: the command line.

  Returns:
    the values of the flags, and the overrides ('optim.learning_rate=3e-4').

  Raises:
    ConfigError: an unknown flag, or a wrong or missing value.
  """
  # Grain and other libraries read absl flags of their own.
  absl_flags.FLAGS.mark_as_parsed()
  plain, overrides = split_overrides(argv)
  known = {
    option: action
    for action in flags._actions
    for option in action.option_strings
  }
  for word in plain:
    name, equals, value = word.partition('=')
    if '\0' in word or '--' in (word, value):
      raise ConfigError(
        f'{word!r}: wanted a flag, or a value without NUL bytes'
      )
    if name.startswith('--') and name not in known:
      names = [option for option in known if option.startswith('--')]
      raise ConfigError(f'no flag {name!r}.' + suggest(name, names))
    if equals and not value and _must_not_be_empty(known.get(name)):
      raise ConfigError(f'{name}: wanted {known[name].metavar}, got nothing')
  values, unknown = flags.parse_known_args(plain)
  if unknown:
    raise ConfigError(f'{unknown[0]!r}: wanted a flag, --name=value')
  return values, overrides


def _must_not_be_empty(action) -> bool:
  """Whether a flag names a file or folder."""
  return action is not None and action.metavar in ('DIR', 'FILE')


def split_overrides(argv: Iterable[str]) -> tuple[list[str], list[str]]:
  """Splits flags from overrides.

  ['--a', '--config.x=1', '--config.y', '2'] -> ['--a'], ['x=1', 'y=2'].

  Raises:
    ConfigError: the last override has no value.
  """
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
  """Loads the config of --config, with overrides; the result is locked.

  Packages in the folder of a config file become importable, see
  `find_packages_in`.

  Args:
    name: path of a file or name in `arvision.configs`, with or without ':arg'.
    overrides: 'key=value' each, see `override`.

  Raises:
    ConfigError: no such config, variant or key, or a value of another type.
  """
  path, _, arg = name.partition(':')
  file, module = _load_module(name)
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
      f'{file}: get_config() returned {config!r}, wanted a ConfigDict'
    )
  # It imports JAX, which the flags of a command do not need.
  from arvision.commands.overrides import override

  return override(config, overrides)


def load_sweep(name: str) -> list[points.Point]:
  """The points of `get_sweep()` of the module of --config.

  Args:
    name: see `load_config`. A function with a parameter gets the variant.

  Raises:
    ConfigError: the module has no such function, or its points are malformed.
  """
  arg = name.partition(':')[2]
  _, module = _load_module(name)
  get_sweep = getattr(module, 'get_sweep', None)
  if not callable(get_sweep):
    sizes = ','.join(size for size in getattr(module, 'SIZES', ()) if size)
    variants = f', --sweep=variant={sizes}' if sizes else ''
    raise ConfigError(
      f"--config='{name}' has no function get_sweep; write one, or name values: "
      f'--sweep=KEY=A,B{variants}'
    )
  try:
    takes = inspect.signature(get_sweep).parameters
    found = get_sweep(arg) if arg and takes else get_sweep()
    return points.read(found, f"--config='{name}'")
  except ConfigError:
    raise
  except Exception as error:  # user code may raise anything
    text = broken('get_sweep()', error)
    raise ConfigError(f"--config='{name}': {text}") from error


def _load_module(name):
  """The file of --config, and the module in it.

  Raises:
    ConfigError: no such config, or a file that cannot be run.
  """
  file = catalog.find(name.partition(':')[0])
  if not file.resolve().is_relative_to(catalog.root().resolve()):
    find_packages_in(file.parent)
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  if spec is None or spec.loader is None:
    raise ConfigError(f"--config='{name}': wanted a Python file")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as error:  # user code may raise anything
    raise ConfigError(f"--config='{name}': {broken('it', error)}") from error
  return file, module


def _takes_any(get_config) -> bool:
  """Whether a config ignores an unknown variant."""
  try:
    return get_config('no such variant') == get_config()
  except Exception:
    return False


def find_packages_in(folder: str | os.PathLike) -> None:
  """Makes the packages in a folder importable.

  The folder is the last entry of `sys.path`, so it cannot hide installed
  packages.
  """
  path = str(pathlib.Path(folder).resolve())
  if path not in sys.path:
    sys.path.append(path)
