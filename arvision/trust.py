"""Checks the types that stored configs name, before anything is imported.

The stored config of a run, or of encoded tokens, names parts by import path,
and the folder may come from anybody. So a type must be a part of arvision in a
package that its key allows, or a class of a package that the user trusts.
Nothing else is imported. Configs from the command line are the user's own and
are not checked.
"""

import dataclasses
import importlib
import inspect
import pathlib
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import arvision
from arvision.build import PATH, resolve
from arvision.errors import ConfigError

_ROOT = pathlib.Path(arvision.__path__[0])
_PARTS = (
  'layouts',
  'layers',
  'process',
  'quantizers',
  'tokenizers',
  'feeds',
  'backbones',
  'heads',
  'samplers',
)
# First key of a config -> packages of its part, and of the parts inside it.
_ROOMS = {
  'data': (('data',), ('data',)),
  'tokenizer': (('tokenizers',), _PARTS),
  'layout': (('layouts',), ('layouts',)),
  'feed': (('feeds',), _PARTS),
  'backbone': (('backbones',), _PARTS),
  'head': (('heads',), _PARTS),
  'condition': (('layers',), _PARTS),
  'sampler': (('samplers',), _PARTS),
  'optim': (('training.optim',), ('training.optim', 'training.schedule')),
  'task': (('tasks',), (*_PARTS, 'tasks.perception')),
  'release': (('importers',), ('importers',)),
  'evals': ((), ('evals',)),
  'writers': ((), ('training.wandb',)),
}


# Advice for runs from before a part was renamed or moved.
OLDER = 'use the version that made the run, or train or import it again'
_LOST = f'this version of arvision has no such part; {OLDER}'


def packages(allow: str | Iterable[str]) -> tuple[str, ...]:
  """Parses --allow: 'mylab,other' or a list of such -> ('mylab', 'other').

  Raises:
    ConfigError: not an import path, or one of the standard library.
  """
  texts = [allow] if isinstance(allow, str) else allow
  names = tuple(name for text in texts for name in text.split(',') if name)
  for name in names:
    top = name.partition('.')[0]
    if not PATH.fullmatch(f'{name}.x') or top in sys.stdlib_module_names:
      raise ConfigError(
        f"--allow='{name}': wanted a package with parts, --allow=my_package"
      )
  return names


def foreign(config: Mapping) -> tuple[str, ...]:
  """The types in a config that are neither arvision's nor Python's."""
  return tuple(
    path
    for _, path in _types(config, ())
    if isinstance(path, str)
    and PATH.fullmatch(path)
    and not _is_ours(path.removeprefix('arvision.'))
    and path.partition('.')[0] not in sys.stdlib_module_names
  )


def check(
  stored: Any, source: str, allow: Iterable[str] = (), key: str = ''
) -> None:
  """Checks the types in stored values.

  Args:
    stored: JSON values.
    source: their file.
    allow: trusted packages or import paths.
    key: their config key, '' for a whole config.

  Raises:
    ConfigError: a type that is not allowed.
  """
  allow = packages(allow)
  try:
    for keys, path in _types(stored, (key,) if key else ()):
      _check(keys, path, allow, source)
  except RecursionError:
    raise ConfigError(f'{source}: its blocks are nested too deep') from None


def _types(value: Any, keys: tuple) -> Iterator[tuple[tuple, Any]]:
  """(keys of a block, its type) of all blocks, those in lists included."""
  if isinstance(value, (list, tuple)):
    for item in value:
      yield from _types(item, keys)
  elif hasattr(value, 'items'):
    if 'type' in value:
      yield keys, value['type']
    for name, item in value.items():
      yield from _types(item, (*keys, name))


def _check(keys, path, allow, source):
  # Keys of a file may contain anything: repr escapes them.
  key = repr('.'.join((*keys, 'type')))[1:-1]
  where = f'{source}: config.{key}={str(path)[:80]!r}'
  own, inside = _ROOMS.get(keys[0] if keys else '', ((), ()))
  rooms = own if len(keys) == 1 else inside
  wanted = ' or '.join(f'arvision.{room}' for room in rooms)
  refused = f'{where}: ' + (
    f'wanted a part of {wanted}' if rooms else 'no part belongs there'
  )
  if not isinstance(path, str) or not PATH.fullmatch(path):
    raise ConfigError(refused)
  short = path.removeprefix('arvision.')
  if _is_ours(short):
    in_room = any(short.startswith(f'{room}.') for room in rooms)
    if in_room and _is_lost(short):
      raise ConfigError(f'{where}: {_LOST}')
    if not in_room or not _is_part(short):
      raise ConfigError(refused)
    return
  top = path.partition('.')[0]
  if not rooms or top in ('arvision', *sys.stdlib_module_names):
    raise ConfigError(refused)
  if not any(f'{path}.'.startswith(f'{name}.') for name in allow):
    if top in {room.partition('.')[0] for room in rooms}:
      raise ConfigError(f'{where}: {_LOST}')
    raise ConfigError(
      f'{refused}. Other packages run their own code: if you trust it, '
      f"add --allow={top} (in Python: load_run(..., allow=('{top}',)))"
    )
  found = resolve(path, key)
  home = str(getattr(found, '__module__', '')).partition('.')[0]
  single = inspect.isclass(found) or _makes_layout(found) or path in allow
  if home != top or not single:
    raise ConfigError(
      f'{where}: wanted a class that {top} itself defines. If you trust this '
      f'function, state its whole path: --allow={path}'
    )


def _is_ours(short: str) -> bool:
  """Whether 'package.module.Name' is in arvision, without importing it."""
  file = _ROOT.joinpath(*short.split('.')[:-1])
  return file.is_dir() or file.with_suffix('.py').is_file()


def _is_lost(short) -> bool:
  """Whether the module of a path exists in arvision without that name."""
  module, name = f'arvision.{short}'.rsplit('.', 1)
  if name.startswith('_') or _ROOT.joinpath(*short.split('.')[:-1]).is_dir():
    return False
  return not hasattr(importlib.import_module(module), name)


def _is_part(short) -> bool:
  """Whether a path in arvision is that of a part that is defined there."""
  module, name = f'arvision.{short}'.rsplit('.', 1)
  found = getattr(importlib.import_module(module), name, None)
  if name.startswith('_') or getattr(found, '__module__', '') != module:
    return False
  if not inspect.isclass(found):
    return _makes_layout(found)
  # Importers' tables are parts without fields.
  is_table = hasattr(found, 'rows') and hasattr(found, 'derived')
  return dataclasses.is_dataclass(found) or is_table


def _makes_layout(found) -> bool:
  """Whether a function is annotated to return a `Layout`."""
  try:
    made = typing.get_type_hints(inspect.unwrap(found)).get('return')
  except (NameError, TypeError, AttributeError):
    return False
  return inspect.isclass(made) and made.__module__ == 'arvision.layouts.base'
