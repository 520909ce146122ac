"""Points of a sweep: what `get_sweep` of a config and --sweep say."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from arvision.errors import ConfigError

# Keys of a point that are not keys of the config.
NAME, VARIANT, SEEDS, NEEDS = 'name', 'variant', 'seeds', 'needs'
_RESERVED = (NAME, VARIANT, SEEDS, NEEDS)
# Most points of a sweep, and letters of a name: it becomes a folder.
_MOST, _LETTERS = 1000, 120


@dataclasses.dataclass(frozen=True)
class Point:
  """A variant of a config, trained once per seed.

  Attributes:
    name: name in tables.
    variant: variant of the config, as after a colon in --config; '' for that
      of the sweep.
    overrides: key of the config -> value as text.
    seeds: seeds of its runs; () for those of the sweep.
    needs: key of the config -> config of the run whose folder is its value.
      That run is trained first, once for all points that need it.
  """

  name: str
  variant: str = ''
  overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
  seeds: tuple[int, ...] = ()
  needs: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def slug(self) -> str:
    """The name as the name of a folder."""
    return slug(self.name)


def slug(name: str) -> str:
  """A name, or the name of a config, as the name of a folder."""
  return re.sub(r'[^\w.+=-]+', '_', name).lstrip('.=-')


def read(found: Any, where: str) -> list[Point]:
  """The points of `get_sweep`.

  Args:
    found: what it returned: an iterable of dicts, each key -> value. The keys
      'name', 'variant', 'seeds' and 'needs' are fields of `Point`, the others
      are keys of the config. A nested dict sets the keys of a block.
    where: name of the config, for errors.

  Raises:
    ConfigError: no points, a malformed one, or two with the same name.
  """
  if isinstance(found, str | Mapping) or not isinstance(found, Iterable):
    raise ConfigError(
      f'{where}: get_sweep() returned {_short(found)}, wanted a list of dicts'
    )
  points = [
    _read(entry, f'{where}: point {i} of get_sweep()')
    for i, entry in enumerate(itertools.islice(found, _MOST + 1))
  ]
  return checked(points, where)


def checked(points: Sequence[Point], where: str) -> list[Point]:
  """Points whose names differ, as names of folders too.

  Raises:
    ConfigError: two have the same name, there are none, or too many.
  """
  if not points:
    raise ConfigError(f'{where}: the sweep has no points')
  if len(points) > _MOST:
    raise ConfigError(f'{where}: the sweep has more than {_MOST} points')
  names: dict[str, Point] = {}
  for point in points:
    if not point.slug or len(point.slug) > _LETTERS:
      raise ConfigError(
        f'{where}: point {_short(point.name)}: wanted a name of letters and '
        f"digits, {_LETTERS} at most; give it a 'name'"
      )
    if point.slug in names:
      raise ConfigError(
        f'{where}: two points are named {point.name!r}; give each its own '
        "'name'"
      )
    names[point.slug] = point
  return list(points)


def _read(entry, where):
  if not isinstance(entry, Mapping):
    raise ConfigError(f'{where} is {_short(entry)}, wanted a dict')
  if wrong := [key for key in entry if not isinstance(key, str)]:
    raise ConfigError(f'{where}: the key {_short(wrong[0])} is no text')
  for key in (NAME, VARIANT):
    if not isinstance(entry.get(key, ''), str):
      raise ConfigError(f'{where}: {key}={_short(entry[key])}, wanted text')
  seeds = entry.get(SEEDS, ())
  if not isinstance(seeds, Iterable) or isinstance(seeds, str):
    raise ConfigError(f'{where}: seeds={_short(seeds)}, wanted a list of them')
  seeds = tuple(seeds)
  if any(type(s) is not int or s < 0 for s in seeds) or _repeat(seeds):
    raise ConfigError(
      f'{where}: seeds={_short(seeds)}, wanted different whole numbers'
    )
  needs = entry.get(NEEDS, {})
  if not isinstance(needs, Mapping) or not all(
    isinstance(x, str) for pair in needs.items() for x in pair
  ):
    raise ConfigError(
      f"{where}: needs={_short(needs)}, wanted {{'frozen.tokenizer': config}}"
    )
  overrides = dict(
    _flat({k: v for k, v in entry.items() if k not in _RESERVED})
  )
  if 'seed' in overrides:
    raise ConfigError(f"{where}: wanted 'seeds', a list, instead of 'seed'")
  name = entry.get(NAME) or _name(entry.get(VARIANT, ''), overrides)
  return Point(name, entry.get(VARIANT, ''), overrides, seeds, dict(needs))


def _repeat(values):
  return len({*values}) < len(values)


def _name(variant, overrides):
  parts = [variant] if variant else []
  parts += [f'{k.rpartition(".")[2]}={v}' for k, v in overrides.items()]
  return ','.join(parts) or 'base'


def _flat(block: Mapping, before: str = '') -> Iterator[tuple[str, str]]:
  """('key.of.block', value as the text of an override)."""
  for key, value in block.items():
    if hasattr(value, 'items'):
      yield from _flat(value, f'{before}{key}.')
    else:
      yield f'{before}{key}', _text(value)


def _text(value):
  if isinstance(value, list):
    value = tuple(value)
  if value is None or isinstance(value, bool):
    return str(value).lower()
  return value if isinstance(value, str) else repr(value)


def quick(texts: Sequence[str]) -> list[Point]:
  """The points of --sweep: all combinations of its values.

  Args:
    texts: 'key=value,value' each; commas inside brackets belong to a value. The
      key 'variant' is the variant of the config.

  Raises:
    ConfigError: another form, or a key that comes twice.
  """
  values: dict[str, list[str]] = {}
  for text in texts:
    key, equals, rest = text.partition('=')
    key, found = key.removeprefix('config.'), _split(rest)
    if not (key and equals and all(found)) or _repeat(found):
      raise ConfigError(
        f"--sweep='{text}': wanted KEY=A,B,... with different values"
      )
    if key in values:
      raise ConfigError(f'--sweep={key}: wanted once, with all its values')
    if key in ('seed', NAME, SEEDS, NEEDS):
      raise ConfigError(f'--sweep={key}: no key to sweep; see --seeds')
    values[key] = found
  points = []
  for chosen in itertools.islice(
    itertools.product(*values.values()), _MOST + 1
  ):
    overrides = dict(zip(values, chosen))
    variant = overrides.pop(VARIANT, '')
    points.append(Point(_name(variant, overrides), variant, overrides))
  return checked(points, '--sweep')


def _split(text):
  """'a,(1,2)' -> ['a', '(1,2)']."""
  parts, depth = [''], 0
  for letter in text:
    depth += (letter in '([{') - (letter in ')]}')
    if letter == ',' and depth <= 0:
      parts.append('')
    else:
      parts[-1] += letter
  return [part.strip() for part in parts]


def _short(value):
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:59]}…'
