"""The folder of a run, and the config that it belongs to."""

import inspect
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from arvision import trust
from arvision.build import (
  REQUIRED,
  ConfigError,
  fields,
  is_part,
  resolve,
  to_block,
  type_path,
)

CONFIG = 'config.json'
CHECKPOINTS = 'checkpoints'
# Weights of a release, in the place of checkpoints.
IMPORTED = 'imported'
# Keys that may differ between the parts of a run that was stopped and resumed:
# none of them changes what a step computes, but for the run's length and for
# rounding.
CHANGEABLE = (
  'train.duration',
  'log',
  'checkpoint',
  'pictures',
  'evals',
  'mesh',
  'rules',
  'data.threads',
  'data.workers',
  'data.cache',
  'release',
  'backbone.attention.kernel',
)

_MAY = tuple(f'config.{key}{end}' for key in CHANGEABLE for end in '.:')


def to_json(config: ConfigDict) -> dict[str, Any]:
  """A config as plain JSON values; tuples become lists."""
  plain = config.copy_and_resolve_references().to_dict()
  return json.loads(json.dumps(plain))


def from_json(plain: Mapping[str, Any]) -> ConfigDict:
  """The config that `to_json` was given; lists become tuples."""
  return ConfigDict({k: _tuples(v) for k, v in plain.items()}).lock()


def _tuples(value):
  if isinstance(value, dict):
    return {k: _tuples(v) for k, v in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(v) for v in value)
  return value


def load_config(
  workdir: str | os.PathLike, allow: Iterable[str] | None = ()
) -> ConfigDict:
  """The config of the run in a folder.

  Args:
    workdir: the folder.
    allow: packages whose classes it may name besides parts of arvision; None
      where it is only compared and nothing of it is built.

  Raises:
    ConfigError: the folder has none, or it names what is no part.
  """
  path = pathlib.Path(workdir) / CONFIG
  if not path.is_file():
    raise ConfigError(
      f"'{workdir}' is not the folder of a run: it has no {CONFIG}. Train "
      'there first (arvision train --workdir=...), or name another folder'
    )
  try:
    plain = json.loads(path.read_text())
    if allow is not None:
      trust.check(plain, str(path), allow)
    return from_json(plain)
  except ConfigError:
    raise
  except (ValueError, RecursionError) as error:
    raise ConfigError(f'{path} is damaged: {error}') from error


def save_config(workdir: str | os.PathLike, config: ConfigDict) -> None:
  """Writes config.json, whole or not at all."""
  path = pathlib.Path(workdir) / CONFIG
  new = path.with_suffix('.tmp')
  new.write_text(json.dumps(to_json(config), indent=2) + '\n')
  new.replace(path)


def check_same(config: ConfigDict, workdir: str | os.PathLike) -> None:
  """Refuses a folder with the run of another config, and what is no folder.

  Raises:
    ConfigError: with the keys that differ, as they were and as they are.
  """
  if '://' in str(workdir):
    raise ConfigError(
      f"'{workdir}': runs are kept in folders; mount what is behind the URL, "
      'and name the folder'
    )
  folder = pathlib.Path(workdir)
  if not (folder / CONFIG).exists():
    if (folder / CHECKPOINTS).exists():
      raise ConfigError(
        f"'{workdir}' has checkpoints but no {CONFIG}, so nobody knows what "
        'they are of; choose another --workdir'
      )
    return
  differ = [
    line
    for line in differences(load_config(folder, allow=None), config)
    if not line.strip().startswith(_MAY)
  ]
  if differ:
    raise ConfigError(
      f"'{workdir}' holds a run of another config:\n"
      + '\n'.join(differ)
      + '\nSet these back to go on with it, or choose another --workdir'
    )


def differences(
  old: ConfigDict, new: ConfigDict, key: str = 'config'
) -> list[str]:
  """A line for every key that differs: 'key: value there, value here'.

  Args:
    old: the config that is there.
    new: the config that is asked for; only types that it names are looked up,
      to know that a field with its default is the same as one left out.
    key: what the keys are to begin with.
  """
  old, new = _with_defaults(to_json(old), to_json(new), key)
  there, here = dict(_flat(old, key)), dict(_flat(new, key))
  return [
    f'  {k}: {there.get(k, "absent")!r} there, {here.get(k, "absent")!r} here'
    for k in sorted({*there, *here})
    if there.get(k) != here.get(k)
  ]


def _with_defaults(old, new, key):
  """Two blocks where what one of them leaves out has its default."""
  if 'type' in new and old.get('type') == new['type']:
    declared = fields(resolve(new['type'], f'{key}.type')) or {}
    for name in (old.keys() ^ new.keys()) & declared.keys():
      if declared[name].default is not REQUIRED:
        default = _json_default(declared[name].default)
        old, new = {name: default, **old}, {name: default, **new}
  for name in old.keys() & new.keys():
    if isinstance(old[name], dict) and isinstance(new[name], dict):
      pair = _with_defaults(old[name], new[name], f'{key}.{name}')
      old, new = {**old, name: pair[0]}, {**new, name: pair[1]}
  return old, new


def _json_default(default):
  """A default as `to_json` writes it; a default that it cannot write is said."""
  plain = to_block(default) if is_part(default) else default
  if inspect.isclass(default):
    plain = {'type': type_path(default)}
  try:
    return json.loads(json.dumps(plain))
  except TypeError:
    return f'{plain}'


def other_weights(old: ConfigDict, new: ConfigDict, key: str) -> list[str]:
  """The `differences` of two blocks that mean other weights.

  A part, or one inside of it, may name fields as `adjustable`: they may differ,
  as no parameter depends on them.
  """
  return differences(*_weighty(old, new, key), f'config.{key}')


def _weighty(old, new, key):
  """Two blocks without the fields that are adjustable in the second."""
  may: tuple[str, ...] = ()
  if 'type' in new:
    may = getattr(resolve(new.type, f'{key}.type'), 'adjustable', ())
  there, here = (
    ConfigDict({k: v for k, v in block.items() if k not in may})
    for block in (old, new)
  )
  for name, part in here.items():
    if isinstance(part, ConfigDict) and isinstance(there.get(name), ConfigDict):
      there[name], here[name] = _weighty(there[name], part, f'{key}.{name}')
  return there, here


def _flat(value, key) -> Iterator[tuple[str, Any]]:
  if isinstance(value, dict):
    for name, part in value.items():
      yield from _flat(part, f'{key}.{name}')
  else:
    yield key, value
