"""config -> parts. The only place that resolves a name.

A block of a config is a mapping with a `type`: the import path of a class or
function, `heads.categorical.Categorical` for `arvision.heads...`, or the full
path of a user's own package. The other keys are its fields. A block inside a
block becomes a template (`functools.partial`) where it is a Flax module, for
its parent to call, and an instance where it is not.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from arvision import ranges


class ConfigError(ValueError):
  """A config that cannot be built; the text says which key to change."""


# What code raises that is given values that it cannot do with.
FAULTS = (
  ArithmeticError,
  AssertionError,
  AttributeError,
  LookupError,
  TypeError,
  ValueError,
)


class Checked:
  """Dataclasses that hold their fields to their annotations, see `ranges`.

  Raises:
    ConfigError: from the constructor, with the first field that does not fit.
  """

  def __post_init__(self):
    kinds = ranges.kinds(type(self))
    for field in dataclasses.fields(self):  # type: ignore[arg-type]
      name = f'{type(self).__name__}.{field.name}'
      check(getattr(self, field.name), kinds.get(field.name, Any), name)


def suggest(name: str, names) -> str:
  """' (did you mean x?)' where a name is close, and the names there are."""
  names = sorted(names)
  near = difflib.get_close_matches(name, names, n=1)
  hint = f" Did you mean '{near[0]}'?" if near else ''
  return f'{hint} There are: {", ".join(names)}.'


def resolve(path: str, key: str = 'type') -> Any:
  """The object at an import path, tried inside arvision first.

  Args:
    path: 'module.path.Name'.
    key: the config key that holds the path, for the error.

  Raises:
    ConfigError: no such module or no such name in it.
  """
  if '.' not in str(path).strip('.'):
    raise ConfigError(f"config.{key}='{path}': wanted 'module.path.Name'.")
  module_name, name = path.rsplit('.', 1)
  for candidate in (f'arvision.{module_name}', module_name):
    try:
      module = importlib.import_module(candidate)
    except ModuleNotFoundError as error:
      # A missing module on the way means: not here. Anything else that is
      # missing is the fault of the module itself and must be seen.
      missing = error.name or ''
      if candidate == missing or candidate.startswith(missing + '.'):
        continue
      raise
    if callable(getattr(module, name, None)):
      return getattr(module, name)
    public = [
      n
      for n, v in vars(module).items()
      if callable(v) and getattr(v, '__module__', '') == module.__name__
    ]
    raise ConfigError(
      f"config.{key}='{path}': {candidate} has no '{name}'."
      + suggest(name, public)
    )
  raise ConfigError(
    f"config.{key}='{path}': no module '{module_name}'."
    + suggest(module_name, _modules())
  )


def build(block: Mapping, key: str, **given) -> Any:
  """The part that a block describes.

  Args:
    block: mapping with `type` and the fields.
    key: where the block stands in the config, for errors.
    **given: fields that the caller supplies instead of the config.

  Raises:
    ConfigError: unknown type or field, or a missing field.
  """
  target, fields = _fields(block, key)
  return _call(target, {**fields, **given}, key)


def template(block: Mapping, key: str) -> functools.partial:
  """A partial of the part that a block describes, for its parent to call."""
  target, fields = _fields(block, key)
  return functools.partial(target, **fields)


def _fields(block, key):
  if not isinstance(block, Mapping) and not hasattr(block, 'items'):
    raise ConfigError(f'config.{key}: wanted a block with a type, got {block}.')
  block = dict(block.items())
  if 'type' not in block:
    raise ConfigError(f"config.{key}: no 'type' in {sorted(block)}.")
  target = resolve(block.pop('type'), f'{key}.type')
  names, kinds = field_names(target), ranges.kinds(target)
  fields = {}
  for name, value in block.items():
    if names is not None and name not in names:
      raise ConfigError(
        f'config.{key}.{name}: {target.__name__} has no such field.'
        + suggest(name, names)
      )
    fields[name] = _value(value, f'{key}.{name}')
    check(fields[name], kinds.get(name, Any), f'config.{key}.{name}')
  return target, fields


def check(value: Any, kind: Any, name: str) -> None:
  """Refuses a value that is not of a kind, see `ranges`.

  Raises:
    ConfigError: with the name of the value, and what was wanted.
  """
  wrong = ranges.fault(value, kind)
  if wrong:
    raise ConfigError(f'{name}={ranges.shown(value)}: {wrong}')


def _value(value, key):
  if not isinstance(value, str) and hasattr(value, 'items'):
    if 'type' not in value:
      return {k: _value(v, f'{key}.{k}') for k, v in value.items()}
    target = resolve(value['type'], f'{key}.type')
    if inspect.isclass(target) and issubclass(target, nn.Module):
      return template(value, key)
    return build(value, key)
  if isinstance(value, (tuple, list)):
    return tuple(_value(v, f'{key}[{i}]') for i, v in enumerate(value))
  return value


def field_names(target) -> list[str] | None:
  """Fields that a config may set; None where anything goes (**kwargs)."""
  if dataclasses.is_dataclass(target):
    hidden = {'parent', 'name'}
    return [
      f.name
      for f in dataclasses.fields(target)
      if f.init and f.name not in hidden
    ]
  try:
    parameters = inspect.signature(target).parameters.values()
  except ValueError:  # of a type in C
    return None
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return None
  return [p.name for p in parameters if p.name != 'self']


def _call(target, fields, key):
  required = _required(target)
  missing = [name for name in required if name not in fields]
  if missing:
    raise ConfigError(
      f'config.{key}: {target.__name__} needs {", ".join(missing)}.'
    )
  try:
    return target(**fields)
  except ConfigError:
    raise
  except FAULTS as error:
    raise ConfigError(f'config.{key} ({target.__name__}): {error}') from error


def _required(target):
  if dataclasses.is_dataclass(target):
    return [
      f.name
      for f in dataclasses.fields(target)
      if f.init
      and f.default is dataclasses.MISSING
      and f.default_factory is dataclasses.MISSING
    ]
  if field_names(target) is None:
    return []
  return [
    p.name
    for p in inspect.signature(target).parameters.values()
    if p.default is p.empty
    and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    and p.name != 'self'
  ]


def _modules():
  import pkgutil

  import arvision

  return [
    m.name.removeprefix('arvision.')
    for m in pkgutil.walk_packages(arvision.__path__, 'arvision.')
    if not m.ispkg and '.configs' not in m.name
  ]
