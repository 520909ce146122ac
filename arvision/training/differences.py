"""Differences between the config of a run and a new config."""

import inspect
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from arvision.build import (
  REQUIRED,
  fields,
  is_part,
  resolve,
  to_block,
  type_path,
)
from arvision.data import urls
from arvision.errors import ConfigError
from arvision.training.workdir import (
  CONFIG,
  holds_run,
  load_config,
  saved_steps,
  to_json,
)

# Keys that may change when a run is resumed. They change the length of the run
# and rounding, and otherwise nothing that a step computes.
CHANGEABLE = (
  'train.duration',
  'log',
  'checkpoint',
  'pictures',
  'evals',
  'writers',
  'watchdog',
  'check_data',
  'not_finite',
  'corruption',
  'spikes',
  'mesh',
  'rules',
  'data.threads',
  'data.workers',
  'data.cache',
  'data.broken_share',
  'release',
  'backbone.block.attention.kernel',
)

# Keys added in later versions, with the value that older runs trained with.
FORMERLY = {'ema_warmup': False}

# Fields that change how a part computes and not its parameters.
_COMPUTING = ('dtype', 'remat', 'unroll')
# Keys that may change with `arvision train --change`: the structure of the
# train state does not depend on them.
TUNABLE = (
  'data.batch_size',
  'optim.learning_rate',
  'optim.schedule',
  'optim.weight_decay',
  'optim.weight_decay_end',
  'optim.clip',
  'optim.accumulate',
)
# Turning these on or off changes the optimizer state.
_SWITCHES = ('clip', 'weight_decay', 'weight_decay_end')
# Lines of a message before '... and 37 more'.
_LINES = 5


def check_same(
  config: ConfigDict, workdir: str | os.PathLike, change: bool = False
) -> dict[str, tuple[Any, Any]]:
  """Checks that a folder holds no run of another config.

  Args:
    config: the new config.
    workdir: folder of the run.
    change: whether the keys of `TUNABLE` may differ.

  Returns:
    key -> (value there, value here) of the keys that differ and may differ:
    paths, and `TUNABLE` keys with `change`. The content of a path is compared
    when it is read.

  Raises:
    ConfigError: it does, with the keys that differ; or it is a URL, or has
      checkpoints without a config.
  """
  if '://' in str(workdir):
    raise ConfigError(
      f"'{workdir}': wanted a folder, got a URL; `arvision train` takes one, and "
      'in Python `runs.remote.mirrored` makes a local copy'
    )
  folder = pathlib.Path(workdir)
  if not (folder / CONFIG).exists() and saved_steps(folder):
    raise ConfigError(
      f"'{workdir}' has checkpoints but no {CONFIG}, so their config is "
      'unknown; choose another --workdir'
    )
  if not holds_run(folder):
    return {}
  old = load_config(folder, allow=None)
  there, here = _kind(old), _kind(config)
  if there and here and there.split()[1] != here.split()[1]:
    raise ConfigError(
      f"'{workdir}' holds {there}, but this config trains {here}; choose "
      'another --workdir'
    )
  differ = {
    key: values
    for key, values in changes(_completed(old), _completed(config)).items()
    if not _within(key, CHANGEABLE)
  }
  tuned = {k for k, values in differ.items() if _is_tuned(k, *values)}
  moved = {k for k, values in differ.items() if _is_moved(k, *values)}
  refused = {*differ} - moved - (tuned if change else set())
  if refused:
    advice = 'Set these back to resume it, or choose another --workdir'
    if refused <= tuned:
      advice = (
        'To resume it with the new values, add --change; otherwise set these '
        'back, or choose another --workdir'
      )
    # Types of outer blocks first: the other differences follow from them.
    order = sorted(
      refused, key=lambda k: (not k.endswith('.type'), k.count('.'), k)
    )
    lines = [_line(key, *differ[key]) for key in order]
    raise ConfigError(
      f"'{workdir}' holds a run of another config:\n{shortened(lines)}\n{advice}"
    )
  return differ


def _kind(config):
  """'a generator (Scales, Categorical)', 'a tokenizer (Pyramid)', or ''."""
  if 'tokenizer' not in config:
    return ''
  names = ('layout', 'head') if 'backbone' in config else ('tokenizer',)
  types = [str(config.get(n, {}).get('type', '?')) for n in names]
  kind = 'generator' if 'backbone' in config else 'tokenizer'
  return f'a {kind} ({", ".join(t.rpartition(".")[2] for t in types)})'


def _within(key, names):
  return any(f'{key}.'.startswith(f'config.{name}.') for name in names)


def _is_tuned(key, there, here):
  if not _within(key, TUNABLE):
    return False
  if key.rpartition('.')[2] in _SWITCHES:
    return (there is None, bool(there)) == (here is None, bool(here))
  return True


def _is_moved(key, there, here):
  """Whether a key is a path, with a path as both values."""
  if not all(isinstance(path, str) and path for path in (there, here)):
    return False
  name = key.rpartition('.')[2]
  return _within(key, ('frozen',)) or (
    _within(key, ('data',)) and name in urls.KEYS
  )


def shortened(lines: Sequence[str]) -> str:
  """The first lines, and '... and 37 more' for the rest."""
  more = len(lines) - _LINES
  if more < 2:
    return '\n'.join(lines)
  return '\n'.join([*lines[:_LINES], f'  ... and {more} more'])


def as_before(config: ConfigDict, workdir: str | os.PathLike) -> ConfigDict:
  """A config in which keys that the run does not know have its old behaviour.

  Args:
    config: the new config; it is not changed.
    workdir: folder of the run. Without a run, nothing changes.

  Returns:
    a config with the values of `FORMERLY` where the run is older than a key.

  Raises:
    ConfigError: the config of the run is damaged.
  """
  if not (pathlib.Path(workdir) / CONFIG).is_file():
    return config
  there = load_config(workdir, allow=None)
  changed = ConfigDict(config)
  with changed.unlocked():
    for key, value in FORMERLY.items():
      if there.get(key, value) == value != changed.get(key, value):
        logging.warning(
          "'%s' was started with config.%s=%s and resumes with it",
          *(workdir, key, value),
        )
        changed[key] = value
  return changed


def _completed(config):
  """A config with the keys of `FORMERLY`."""
  completed = ConfigDict(config)
  with completed.unlocked():
    for key, value in FORMERLY.items():
      completed[key] = config.get(key, value)
  return completed


def differences(
  old: ConfigDict, new: ConfigDict, key: str = 'config'
) -> list[str]:
  """A line for every key that differs: 'key: value there, value here'.

  A field with its default value equals a field that is left out. Defaults are
  those of the types that `new` names; no type of `old` alone is imported.

  Args:
    old: the config of the run.
    new: the new config.
    key: prefix of the keys.
  """
  return [_line(k, *values) for k, values in changes(old, new, key).items()]


def changes(
  old: ConfigDict, new: ConfigDict, key: str = 'config'
) -> dict[str, tuple[Any, Any]]:
  """key -> (value there, value here), 'absent' for none."""
  old, new = _with_defaults(to_json(old), to_json(new), key)
  there, here = dict(flat(old, key)), dict(flat(new, key))
  found = {
    k: (there.get(k, 'absent'), here.get(k, 'absent'))
    for k in sorted({*there, *here})
  }
  return {k: (a, b) for k, (a, b) in found.items() if a != b}


def _line(key, there, here):
  return f'  {key}: {there!r} there, {here!r} here'


def _with_defaults(old, new, key):
  """The two blocks; fields that one of them leaves out have their default."""
  if 'type' in new and old.get('type') == new['type']:
    declared = (
      fields(resolve(new['type'], f'{key}.type'.removeprefix('config.'))) or {}
    )
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
  """A default as `to_json` writes it, or its text where JSON cannot hold it."""
  plain = to_block(default) if is_part(default) else default
  if inspect.isclass(default):
    plain = {'type': type_path(default)}
  try:
    return json.loads(json.dumps(plain))
  except TypeError:
    return f'{plain}'


def other_weights(old: ConfigDict, new: ConfigDict, key: str) -> list[str]:
  """The `differences` of two blocks in fields that parameters depend on.

  Ignores compute fields (dtype, remat, unroll) and the fields that a part, or a
  part inside it, lists as `adjustable`.

  Args:
    old: a block of the run.
    new: the same block of the new config.
    key: key of the block, without 'config.'.
  """
  return differences(*_weighty(old, new, key), f'config.{key}')


def _weighty(old, new, key):
  """The two blocks without the fields that `other_weights` ignores."""
  may = _COMPUTING
  if 'type' in new:
    may += getattr(resolve(new.type, f'{key}.type'), 'adjustable', ())
  there, here = (
    ConfigDict({k: v for k, v in block.items() if k not in may})
    for block in (old, new)
  )
  for name, part in here.items():
    if isinstance(part, ConfigDict) and isinstance(there.get(name), ConfigDict):
      there[name], here[name] = _weighty(there[name], part, f'{key}.{name}')
  return there, here


def flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
  """Yields ('key.of.block', value) of all fields of nested dicts."""
  if isinstance(value, dict):
    for name, part in value.items():
      yield from flat(part, f'{key}.{name}')
  else:
    yield key, value
