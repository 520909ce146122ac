"""Groups runs into variants: runs whose configs differ in the seed alone."""

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from typing import Any

from arvision import trust
from arvision.errors import ConfigError
from arvision.runs.folder import Folder
from arvision.training import differences
from arvision.training.workdir import from_json

_ABSENT = 'absent'


@dataclasses.dataclass(frozen=True)
class Variant:
  """Runs that differ in the seed alone.

  Attributes:
    name: short and unique name.
    overrides: key of the config -> value, of keys in which variants differ.
    folders: the runs.
  """

  name: str
  overrides: dict[str, Any]
  folders: tuple[Folder, ...]

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds of the runs."""
    stated = [f.config.get('seed') for f in self.folders]
    return tuple(seed if isinstance(seed, int) else 0 for seed in stated)


def group(folders: Sequence[Folder]) -> list[Variant]:
  """Groups runs that differ in the seed alone, in the order given."""
  changed = [_changes(folders[0].config, f.config) for f in folders]
  first: dict[str, Any] = {}
  for found in changed:
    first |= {key: there for key, (there, _) in found.items()}
  keys = _telling(first, changed)
  names = short_names(folders)
  groups: dict[str, list[int]] = {}
  for i, found in enumerate(changed):
    values = {k: found[k][1] if k in found else first[k] for k in keys}
    groups.setdefault(json.dumps(values), []).append(i)
  result = []
  for text, members in groups.items():
    seeds = [json.dumps(folders[i].config.get('seed')) for i in members]
    # Runs with the same config and seed are not repetitions of each other.
    rows = [members] if len({*seeds}) == len(seeds) else [[i] for i in members]
    for row in rows:
      result.append(
        Variant(
          _common([names[i] for i in row]),
          json.loads(text),
          tuple(folders[i] for i in row),
        )
      )
  if len({v.name for v in result}) < len(result):
    first_names = {id(f): name for f, name in zip(folders, names)}
    result = [
      dataclasses.replace(v, name=first_names[id(v.folders[0])]) for v in result
    ]
  return result


def _changes(first, other):
  """key -> (value there, value here) of the keys that differ."""
  try:
    # Filling in defaults imports parts, so only those of arvision.
    for config in (first, other):
      trust.check(config, 'config.json', ())
    found = differences.changes(from_json(first), from_json(other), '')
  except (ConfigError, ValueError, TypeError, KeyError, AttributeError):
    there, here = (dict(differences.flat(c, '')) for c in (first, other))
    found = {
      key: (there.get(key, _ABSENT), here.get(key, _ABSENT))
      for key in sorted({*there, *here})
      if there.get(key, _ABSENT) != here.get(key, _ABSENT)
    }
  return {key.removeprefix('.'): pair for key, pair in found.items()}


def _telling(first, changed):
  """Keys that differ, types first, without what follows from another type."""
  keys = {*first} - {'seed'}
  types = {key for key in keys if key.endswith('.type')}
  blocks = tuple(key.removesuffix('type') for key in types)
  absent = {
    key for found in changed for key in found if _ABSENT in found[key]
  } - types
  follows = {key for key in absent if key.startswith(blocks)} if blocks else ()
  return sorted(keys - {*follows}, key=lambda k: (k not in types, k))


def short_names(folders: Sequence[Folder]) -> list[str]:
  """Paths of runs below their common folder.

  The copy of a run at a URL lies in a hidden folder, which is left out.
  """
  paths = [os.path.abspath(f.path) for f in folders]
  root = os.path.commonpath([os.path.dirname(path) for path in paths])
  names = [os.path.relpath(path, root) for path in paths]
  plain = [re.sub(r'^(.*/)?\.[^/]*/', '', name) for name in names]
  return plain if len({*plain}) == len(names) else names


def _common(names):
  """The name of runs that are called a_seed0, a_seed1, ..."""
  if len(names) == 1:
    return names[0]
  prefix = os.path.commonprefix(names)
  return re.sub(r'[-_ .]*(seed)?[-_ .]*[0-9]*$', '', prefix) or names[0]
