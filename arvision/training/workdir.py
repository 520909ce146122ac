"""The folder of a run: names of its files, its config and its checkpoints."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from arvision import atomic, trust
from arvision.errors import ConfigError

CONFIG = 'config.json'
CHECKPOINTS = 'checkpoints'
# Orbax writes them last, so a checkpoint without them is incomplete.
MARKERS = ('_CHECKPOINT_METADATA', 'state/_METADATA', 'meta/metadata')
# Released weights, instead of checkpoints.
IMPORTED = 'imported'
# The copy of frozen weights.
FROZEN = 'frozen'
LOG = 'log.jsonl'
# Starts, saves and ends.
EVENTS = 'events.jsonl'
# The key of copies in memory, see `training.peers`.
MEMORY = 'memory.key'
# Pictures that cannot be decoded.
BROKEN = 'broken.json'
# Steps before which a batch is left out.
LEFT_OUT = 'left_out.json'
# The run of Weights & Biases.
WANDB = 'wandb.json'
# What the metrics of evaluators in the log were measured by.
PROTOCOLS = 'protocols.json'
# Files of a start that was stopped before its first log line.
_STARTED = (
  BROKEN,
  CONFIG,
  'config.tmp',
  CHECKPOINTS,
  'environment.json',
  EVENTS,
  FROZEN,
  LEFT_OUT,
  LOG,
  'error.txt',
  'lock.json',
  'log.tmp',
  MEMORY,
  'parameters.txt',
  'pictures',
  'tensorboard',
  'wandb',
  WANDB,
)
# Blocks of every config, and further blocks of a generator.
_BLOCKS = ('tokenizer', 'data')
_OF_GENERATORS = ('layout', 'feed', 'backbone', 'head')
_OPTIONAL = ('condition', 'sampler', 'task', 'optim', 'evals')
# Largest depth of nested blocks; no config comes close.
_DEPTH = 32


def to_json(config: ConfigDict) -> dict[str, Any]:
  """A config as plain JSON values; tuples become lists."""
  plain = config.copy_and_resolve_references().to_dict()
  return json.loads(json.dumps(plain))


def from_json(plain: Mapping[str, Any]) -> ConfigDict:
  """The inverse of `to_json`; lists become tuples. The config is locked."""
  return ConfigDict({k: _tuples(v) for k, v in plain.items()}).lock()


def _tuples(value, depth=0):
  if depth > _DEPTH:
    raise ValueError(f'blocks are nested more than {_DEPTH} deep')
  if isinstance(value, dict):
    return {k: _tuples(v, depth + 1) for k, v in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(v, depth + 1) for v in value)
  return value


def load_config(
  workdir: str | os.PathLike, allow: Iterable[str] | None = ()
) -> ConfigDict:
  """The config of the run in a folder.

  Args:
    workdir: the folder.
    allow: packages whose classes the config may name besides those of arvision;
      None skips this check, for configs that are only compared.

  Raises:
    ConfigError: the folder has no config, the config is damaged, or it names a
      class that is not allowed.
  """
  path = pathlib.Path(workdir) / CONFIG
  if not path.is_file():
    raise ConfigError(
      f"'{workdir}' is not the folder of a run: it has no {CONFIG}. Train "
      'there first (arvision train --workdir=...), or name another folder'
    )
  try:
    plain = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(plain, dict):
      raise ValueError(f'wanted a block, got {_short(plain)}')
    if allow is not None:
      trust.check(plain, str(path), allow)
    config = from_json(plain)
    for name in (*_BLOCKS, *_OF_GENERATORS, *_OPTIONAL):
      if name in config and not isinstance(config[name], ConfigDict):
        raise ValueError(
          f'{name}: wanted a block with a type, got {_short(plain[name])}'
        )
  except ConfigError:
    raise
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise ConfigError(f'{path} is damaged: {error}') from error
  return config


def _short(value):
  text = json.dumps(value)
  return text if len(text) <= 40 else f'{text[:37]}...'


def check_blocks(config: ConfigDict, workdir: str | os.PathLike) -> None:
  """Checks that the config of a folder has all blocks of a run.

  Raises:
    ConfigError: it lacks some, or comes from an older version; with the file.
  """
  if 'tokenizer_workdir' in config:
    raise ConfigError(
      f'{pathlib.Path(workdir) / CONFIG} is of an older arvision: it has '
      'tokenizer_workdir instead of frozen.tokenizer; ' + trust.OLDER
    )
  wanted = [*_BLOCKS, *(_OF_GENERATORS if 'backbone' in config else ())]
  lost = [name for name in wanted if name not in config]
  if lost:
    raise ConfigError(
      f'{pathlib.Path(workdir) / CONFIG} is damaged: it has no '
      + ', '.join(lost)
    )


def save_config(workdir: str | os.PathLike, config: ConfigDict) -> None:
  """Writes config.json atomically."""
  text = json.dumps(to_json(config), indent=2) + '\n'
  with atomic.whole(pathlib.Path(workdir) / CONFIG) as new:
    new.write_text(text)


def saved_steps(workdir: str | os.PathLike) -> list[int]:
  """Steps of the checkpoints of a folder, the newest first."""
  folder = pathlib.Path(workdir) / CHECKPOINTS
  names = [p.name for p in folder.glob('*')] if folder.is_dir() else []
  return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def holds_run(workdir: str | os.PathLike) -> bool:
  """Whether a folder holds a run.

  A folder that only has the files of a start that failed before its first log
  line and its first checkpoint holds none.
  """
  folder = pathlib.Path(workdir)
  if not (folder / CONFIG).exists():
    return False
  log = folder / LOG
  # Orbax writes frozen/ under a longer name first.
  names = {path.name.split('.orbax-')[0] for path in folder.iterdir()}
  return bool(
    saved_steps(folder)
    or {name for name in names if not name.startswith('.')} - {*_STARTED}
    or (log.exists() and log.stat().st_size)
  )
