"""config -> parts. The only place that resolves a name.

A block of a config is a mapping with a `type`: the import path of a class or
function, `heads.categorical.Categorical` for `arvision.heads...`, or the full
path of a user's own package. The other keys are its fields. A block inside a
block becomes a template (`functools.partial`) where it is a Flax module, for
its parent to call, and an instance where it is not.
"""

import dataclasses
import functools
import importlib
import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from arvision import ranges
from arvision.errors import ConfigError, broken, did_you_mean, suggest

# 'module.path.Name', as `resolve` takes it.
PATH = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)+', re.ASCII)


# Exceptions that parts raise for values that they cannot use.
FAULTS = (
  ArithmeticError,
  AssertionError,
  AttributeError,
  LookupError,
  TypeError,
  ValueError,
)


class Checked:
  """Base of dataclasses that check their fields against their annotations.

  See `ranges` for the kinds of annotations.

  Raises:
    ConfigError: from the constructor, with the first field that does not fit.
  """

  def __post_init__(self):
    kinds = ranges.kinds(type(self))
    for field in dataclasses.fields(self):  # type: ignore[arg-type]
      name = f'{type(self).__name__}.{field.name}'
      check(getattr(self, field.name), kinds.get(field.name, Any), name)


def resolve(path: str, key: str = 'type') -> Any:
  """The object at an import path, tried inside arvision first.

  Args:
    path: 'module.path.Name'.
    key: the config key that holds the path, for the error.

  Raises:
    ConfigError: no such module or no such name in it.
  """
  if not isinstance(path, str) or not PATH.fullmatch(path):
    raise ConfigError(f"config.{key}={path!r}: wanted 'module.path.Name'.")
  module_name, name = path.rsplit('.', 1)
  for candidate in (f'arvision.{module_name}', module_name):
    module = _module(candidate, key)
    if module is None:
      continue
    found = getattr(module, name, None)
    if callable(found):
      return found
    public = [
      n
      for n, v in vars(module).items()
      if callable(v) and getattr(v, '__module__', '') == module.__name__
    ]
    raise ConfigError(
      f"config.{key}='{path}': {candidate} has no '{name}'."
      + suggest(name, public)
    )
  near = did_you_mean(module_name, _modules(), most=3)
  raise ConfigError(
    f"config.{key}='{path}': no module '{module_name}' in arvision, beside the "
    f'config file, or where Python finds packages.{near}'
  )


def _module(name, key):
  """A module, None where there is none of that name."""
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    # The module or one of its packages is missing: look elsewhere. Any other
    # missing module is an error of an import inside the module.
    missing = error.name or ''
    if name == missing or name.startswith(missing + '.'):
      return None
    raise ConfigError(f'config.{key}: {broken(name, error)}') from error
  except Exception as error:  # a module of the user's may raise anything
    raise ConfigError(f'config.{key}: {broken(name, error)}') from error


def build(block: Mapping, key: str, **given) -> Any:
  """The part that a block describes.

  Args:
    block: mapping with `type` and the fields.
    key: where the block stands in the config, for errors.
    **given: fields that the caller supplies; the config must not set them.

  Raises:
    ConfigError: unknown type or field, a missing field, or one that the caller
      supplies.
  """
  target, stated = _read(block, key)
  for name in given:
    if name in stated:
      raise ConfigError(
        f'config.{key}.{name}: {target.__name__} gets it from the rest of the '
        'config; leave it out'
      )
  return _call(target, {**stated, **given}, key)


def template(block: Mapping, key: str) -> functools.partial:
  """A partial of the part that a block describes, for its parent to call."""
  target, stated = _read(block, key)
  return functools.partial(target, **stated)


def _read(block, key):
  if not isinstance(block, Mapping) and not hasattr(block, 'items'):
    raise ConfigError(f'config.{key}: wanted a block with a type, got {block}.')
  block = dict(block.items())
  if 'type' not in block:
    raise ConfigError(f"config.{key}: no 'type' in {sorted(block)}.")
  target = resolve(block.pop('type'), f'{key}.type')
  names, kinds = fields(target), ranges.kinds(target)
  stated = {}
  for name, value in block.items():
    if names is not None and name not in names:
      raise ConfigError(
        f'config.{key}.{name}: {target.__name__} has no such field.'
        + suggest(name, names)
      )
    stated[name] = _value(value, f'{key}.{name}')
    check(stated[name], kinds.get(name, Any), f'config.{key}.{name}')
  return target, stated


def check(value: Any, kind: Any, name: str) -> None:
  """Checks that a value is of a kind, see `ranges`.

  Args:
    value: any value.
    kind: a type annotation.
    name: name of the value, for the error.

  Raises:
    ConfigError: it is not; with what was wanted.
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


REQUIRED: Any = object()


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of a part, as its class or function declares it.

  Attributes:
    hint: its type; Any where none is declared.
    default: `REQUIRED` where a config must give it.
  """

  hint: Any
  default: Any = REQUIRED


def fields(target) -> dict[str, Field] | None:
  """Fields of a part by name; None where it takes any name (**kwargs)."""
  hints = _hints(target)
  if dataclasses.is_dataclass(target):
    hidden = {'parent', 'name'}
    return {
      f.name: Field(hints.get(f.name, Any), _default(f))
      for f in dataclasses.fields(target)
      if f.init and f.name not in hidden
    }
  try:
    parameters = inspect.signature(target).parameters.values()
  except ValueError:  # of a type in C
    return None
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return None
  return {
    p.name: Field(
      hints.get(p.name, Any), REQUIRED if p.default is p.empty else p.default
    )
    for p in parameters
    if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != 'self'
  }


def value(block: Mapping, name: str) -> Any:
  """The value of a field of a block, or the default of the field."""
  if name in block:
    return block[name]
  return (fields(resolve(block['type'])) or {})[name].default


def _default(field):
  missing = dataclasses.MISSING
  if field.default_factory is not missing:
    return field.default_factory()
  return REQUIRED if field.default is missing else field.default


def _hints(target):
  """Declared types by name, {} where they cannot be resolved."""
  if inspect.isclass(target) and not dataclasses.is_dataclass(target):
    target = target.__init__
  try:
    return typing.get_type_hints(inspect.unwrap(target))
  except (NameError, TypeError, AttributeError):
    return {}


def to_block(part: Any) -> dict[str, Any]:
  """The block that describes a part whose class is a dataclass."""
  cls = type(part)
  values = {name: getattr(part, name) for name in fields(cls) or ()}
  return {
    'type': type_path(cls),
    **{k: to_block(v) if is_part(v) else v for k, v in values.items()},
  }


def type_path(cls: type) -> str:
  """The path by which a config names a class."""
  return f'{cls.__module__}.{cls.__qualname__}'.removeprefix('arvision.')


def is_part(value: Any) -> bool:
  """Whether a field holds a part: an instance of a dataclass."""
  return dataclasses.is_dataclass(value) and not inspect.isclass(value)


def _call(target, given, key):
  missing = [
    name
    for name, field in (fields(target) or {}).items()
    if field.default is REQUIRED and name not in given
  ]
  if missing:
    raise ConfigError(
      f'config.{key}: {target.__name__} needs {", ".join(missing)}.'
    )
  try:
    return target(**given)
  except ConfigError:
    raise
  except FAULTS as error:
    raise ConfigError(f'config.{key} ({target.__name__}): {error}') from error


def _modules():
  import pkgutil

  import arvision

  return [
    m.name.removeprefix('arvision.')
    for m in pkgutil.walk_packages(arvision.__path__, 'arvision.')
    if not m.ispkg and '.configs' not in m.name
  ]
