"""What commands share: flags, and configs with overrides."""

import argparse
import ast
import importlib.util
import inspect
import pathlib
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags

from arvision.build import ConfigError, field_names, resolve, suggest
from arvision.training.schedule import UNITS


class Flags(argparse.ArgumentParser):
  """Flags whose faults are one line each."""

  def error(self, message: str) -> NoReturn:
    """Raises ConfigError: '--number: wanted 1 or more'."""
    raise ConfigError(
      re.sub(r'^argument (\S+?): (?==)|^argument ', r'\1', message)
    )


def parser(command: str, doc: str | None) -> argparse.ArgumentParser:
  """A parser of flags.

  Args:
    command: its name.
    doc: docstring of its module.
  """
  flags = Flags(
    prog=f'arvision {command}',
    description=inspect.cleandoc(doc or ''),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  flags.add_argument(
    '--debug', action='store_true', help='show the traceback of an error'
  )
  return flags


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
  """Whether a flag names a file or folder and has no default to stand for ''."""
  return action is not None and action.metavar in ('DIR', 'FILE')


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
    name: a path or a name in `arvision.configs`, with or without ':arg'.
    overrides: 'key=value' each, see `override`.

  Raises:
    ConfigError: no such config, variant or key, or a value of another type.
  """
  path, _, arg = name.partition(':')
  file = find_config(path)
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise ConfigError(f'{file} has no function get_config, so it is no config')
  try:
    config = module.get_config(arg) if arg else module.get_config()
  except ValueError as error:
    raise ConfigError(f"--config='{name}': {error}") from error
  return override(config, overrides)


def find_config(name: str) -> pathlib.Path:
  """The file of a config.

  Raises:
    ConfigError: with the configs that there are.
  """
  path = pathlib.Path(name)
  if path.is_file():
    return path
  root = _installed()
  short = name.removeprefix('configs/').removesuffix('.py')
  if (root / f'{short}.py').is_file():
    return root / f'{short}.py'
  names = [
    str(p.relative_to(root).with_suffix(''))
    for p in sorted(root.glob('*/*.py'))
    if p.stem != '__init__'
  ]
  raise ConfigError(f"--config='{name}': no such file." + suggest(short, names))


def _installed():
  spec = importlib.util.find_spec('arvision.configs')
  assert spec is not None and spec.submodule_search_locations
  return pathlib.Path(next(iter(spec.submodule_search_locations)))


def override(config: ConfigDict, overrides: Iterable[str]) -> ConfigDict:
  """A locked copy of a config with other values.

  Values are read as the type that stands there. Two kinds of blocks may be
  exchanged: a duration gets another unit (`train.duration.steps=10`), and a
  block with another `type` keeps the fields that the new type has, and takes
  those that it wants.

  Args:
    config: is not changed.
    overrides: 'key.of.block=value' each, without 'config.' in front.

  Raises:
    ConfigError: no such key, with the nearest one; or a value that is not of
      the right type.
  """
  config = config.copy_and_resolve_references()
  fresh: set[str] = set()
  for text in overrides:
    key, _, value = text.partition('=')
    *path, last = key.split('.')
    block = _block(config, path)
    if last == 'type' and 'type' in block:
      fresh |= _change_type(block, '.'.join(path), value)
    elif last in UNITS and len(block) == 1 and [*block][0] in UNITS:
      with block.unlocked():
        del block[[*block][0]]
        block[last] = _literal(value)
    elif key in fresh or (last in block and block[last] is None):
      with block.unlocked():
        block[last] = _literal(value)
    elif last not in block:
      where = '.'.join(path)
      more = [k.rpartition('.')[2] for k in fresh if k.startswith(where + '.')]
      raise ConfigError(
        f'config.{key}: no such key.' + suggest(last, [*block, *more])
      )
    else:
      _set(config, key, value)
  return config.lock()


def _block(config, path):
  """The block at a path of keys."""
  block, seen = config, ''
  for name in path:
    if name not in block:
      raise ConfigError(
        f'config.{seen}{name}: no such key.' + suggest(name, block)
      )
    block, seen = block[name], f'{seen}{name}.'
    if not isinstance(block, ConfigDict):
      raise ConfigError(f'config.{seen[:-1]}={block!r} has no keys in it')
  return block


def _change_type(block, where, name) -> set[str]:
  """Sets the type of a block; returns the keys that it may be given now."""
  target = resolve(name, f'{where}.type')
  names = field_names(target) or []
  with block.unlocked():
    for key in list(block):
      if key not in names and key != 'type':
        del block[key]
    block.type = name
  return {f'{where}.{key}' for key in names if key not in block}


def _set(config, key, value) -> None:
  """Sets a key that exists, read as the type of its value."""
  values = absl_flags.FlagValues()
  # A tuple stands in one flag; as text with parentheses, as in Python.
  argv = ['arvision', f'--config.{key}={value}']
  config_flags.DEFINE_config_dict(
    'config', config, flag_values=values, lock_config=False, sys_argv=argv
  )
  try:
    values(argv)
  except (absl_flags.Error, ValueError, TypeError) as error:
    now = config
    for name in key.split('.'):
      now = now[name]
    raise ConfigError(
      f'--config.{key}={value}: wanted a value like {now!r}'
    ) from error


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return {'true': True, 'false': False}.get(text, text)
