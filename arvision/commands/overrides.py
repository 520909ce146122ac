"""Overrides of config keys, parsed as the declared types of the fields.

A block with a `type` has all fields of that part, whether the config sets them
or not. Blocks without a type have the keys of `SETTINGS`.
"""

import ast
import copy
import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict, FieldReference

from arvision.build import (
  Field,
  fields,
  is_part,
  resolve,
  suggest,
  to_block,
  type_path,
)
from arvision.errors import ConfigError
from arvision.tasks.settings import SETTINGS
from arvision.training.schedule import UNITS

_UNIT_TYPES = dict.fromkeys(UNITS, float) | {'steps': int, 'examples': int}
_YES, _NO = ('true', '1', 'yes'), ('false', '0', 'no')


def override(config: ConfigDict, overrides: Iterable[str]) -> ConfigDict:
  """A locked copy of a config with overrides.

  Any field that a part declares can be set; its text is parsed as the declared
  type. Setting the `type` of a block keeps the fields that the new part has
  too. Setting a unit of a duration replaces its unit (`train.duration.steps=10`).
  Keys that refer to a key that is set follow it, unless they are set too.

  Args:
    config: the config; it is not changed.
    overrides: 'key.of.block=value' each, without 'config.', in any order.

  Raises:
    ConfigError: no such key, with the nearest one; or a value of a wrong type.
  """
  pairs = [text.partition('=')[::2] for text in overrides]
  root = _applied(config, pairs)
  moved = copy.deepcopy(config)
  for key, _ in pairs:
    _move(moved, root, *key.split('.'))
  # A key that is set follows no other.
  return ConfigDict(_applied(moved, pairs)).lock()


def _applied(config, pairs):
  """A config with overrides, as dicts."""
  root = _plain(config.copy_and_resolve_references())
  # Types first, outer blocks before inner ones: they decide on the valid keys.
  for key, value in sorted(pairs, key=_turn):
    *path, last = key.split('.')
    block = _descend(root, path, last)
    if last == 'type' and path and ('type' in block or not block):
      _change_type(block, '.'.join(path), value)
    else:
      _set(block, path, last, value)
  return root


def _move(config, root, *path) -> None:
  """Gives a key that others refer to its value in `root`."""
  for name in path[:-1]:
    config, root = config.get(name), root[name]
    if not isinstance(config, ConfigDict):
      return
  ref = dict(config.items(preserve_field_references=True)).get(path[-1])
  if isinstance(ref, FieldReference):
    ref.set(root[path[-1]], type_safe=False)


def _turn(pair):
  path = pair[0].split('.')
  return (path[-1] != 'type', len(path) if path[-1] == 'type' else 0)


def _plain(value):
  """Converts blocks to dicts."""
  if hasattr(value, 'items'):
    return {k: _plain(v) for k, v in value.items()}
  return value


def _declared(block, path, name) -> dict[str, Field]:
  """Declared fields of a block. A part with **kwargs declares any `name`."""
  if 'type' not in block:
    return SETTINGS.get('.'.join(path), {})
  known = fields(resolve(block['type'], '.'.join((*path, 'type'))))
  return {name: Field(Any)} if known is None else known


def _descend(root, path, last):
  """The block at a path of keys; creates blocks where a field may hold one."""
  block = root
  for i, name in enumerate(path):
    where = '.'.join(path[: i + 1])
    known = _declared(block, path[:i], name)
    if path[:i] in (['evals'], ['writers']) and last == 'type':
      known = {**known, name: Field(Any)}  # they have names of their own
    if name not in block and name not in known:
      raise ConfigError(
        f'config.{where}: no such key.' + suggest(name, {*block, *known})
      )
    if block.get(name) is None:
      deeper = path[i + 1] if i + 1 < len(path) else last
      block[name] = _new_block(known.get(name), where, deeper)
    block = block[name]
    if not isinstance(block, dict):
      raise ConfigError(f'config.{where}={block!r} is no block and has no keys')
  return block


def _new_block(field, where, key):
  """A new block for a field that the config does not set."""
  mapping = field is not None and _is_mapping(field.hint)
  if mapping != (key == 'type'):
    return {}
  if field is not None and is_part(field.default):
    return to_block(field.default)
  if field is not None and inspect.isclass(field.default):
    return {'type': type_path(field.default)}
  raise ConfigError(
    f'config.{where} is None and has no key {key!r}; set its type first: '
    f'--config.{where}.type=module.path.Name'
  )


def _change_type(block, where, path) -> None:
  """Sets the type of a block; keeps the fields that the new part has too."""
  names = fields(resolve(path, f'{where}.type'))
  kept = {k: v for k, v in block.items() if names is None or k in names}
  kept.pop('type', None)
  block.clear()
  block.update({'type': path, **kept})


def _set(block, path, last, text) -> None:
  """Sets a key of a block to the value of a text."""
  key, known = '.'.join((*path, last)), _declared(block, path, last)
  now = block.get(last)
  if 'type' not in block and not known and {*block} <= {*UNITS}:
    known = {unit: Field(kind) for unit, kind in _UNIT_TYPES.items()}
    if last in known:
      block.clear()
  if last not in block and last not in known:
    raise ConfigError(
      f'config.{key}: no such key.' + suggest(last, {*block, *known})
    )
  field = known.get(last, Field(Any))
  try:
    block[last] = _read(text, field, now)
  except ValueError as error:
    raise ConfigError(f'--config.{key}={text}: wanted {error}') from error


def _read(text, field, now):
  """Parses text as the type of a field.

  Raises:
    ValueError: with the wanted type.
  """
  hint, default = field.hint, field.default
  if _is_dtype(default):
    return _dtype(text)
  if isinstance(now, dict) or _holds_part(hint, default):
    if text.lower() == 'none' and (_optional(hint) or default is None):
      return None
    raise ValueError('a block; set its type or one of its keys')
  if hint is Any:
    return _alike(text, default if now is None else now)
  try:
    return _typed(text, hint)
  except ValueError:
    raise ValueError(_name(hint)) from None


def _is_dtype(default) -> bool:
  return default is not None and type(default) is type(jnp.float32)


def _dtype(text):
  floats = ('float32', 'bfloat16', 'float16')
  if text not in floats:
    raise ValueError(f'a dtype: {", ".join(floats)}')
  return text


def _alike(text, example):
  """Parses text as the type of an example; without one, as a Python literal."""
  kind = type(example)
  if text.lower() == 'none':
    return None
  if kind not in (bool, int, float, str, tuple, list):
    return _literal(text)
  try:
    return _typed(text, tuple if kind is list else kind)
  except ValueError:
    raise ValueError(f'a value like {example!r}') from None


def _typed(text: str, hint: Any) -> Any:
  """Parses text as a declared type.

  Raises:
    ValueError: it is not of that type.
  """
  kinds = _members(hint)
  if type(None) in kinds and text.lower() == 'none':
    return None
  for kind in sorted(kinds, key=lambda kind: _order(kind, text)):
    try:
      return _one(text, kind)
    except ValueError:
      continue
  raise ValueError(text)


def _order(kind, text):
  """Order of types to try: numbers before text, tuples if it looks like one."""
  if _is_tuple(kind):
    return 2 if ',' in text or text.strip().startswith(('(', '[')) else 4
  if typing.get_origin(kind) is typing.Literal:
    return 0
  return {bool: 0, int: 0, float: 1, str: 3}.get(kind, 5)


def _one(text, kind):
  """Parses text as one type of a union."""
  if kind is str:
    return text
  if _is_tuple(kind):
    return _as_tuple(text, kind)
  if kind is bool:
    word = text.strip().lower()
    if word in (*_YES, *_NO):
      return word in _YES
    raise ValueError(text)
  if kind is int:
    return int(text)
  if kind is float:
    return _number(float(text))
  if typing.get_origin(kind) is typing.Literal:
    for choice in typing.get_args(kind):
      if text == str(choice):
        return choice
    raise ValueError(text)
  if kind is Any:
    return _literal(text)
  raise ValueError(text)


def _number(value):
  if value != value:
    raise ValueError('not a number')
  return value


def _as_tuple(text, kind):
  """'1,2', '(1, 2)', 'cat,dog', "('cat', 'dog')" -> a tuple."""
  try:
    value = ast.literal_eval(text)
    values = value if isinstance(value, (tuple, list)) else (value,)
    return _elements(values, kind, _fits)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    inner = text.strip()
    if inner[:1] in ('(', '['):
      inner = inner[1:-1]
    words = [word.strip() for word in inner.split(',')]
    if not words[-1]:
      words.pop()
    return _elements(words, kind, _typed)


def _elements(values, kind, read):
  """Converts values to the elements of a tuple type."""
  args = typing.get_args(kind)
  if not args:
    return tuple(values)
  if len(args) == 1 or args[-1] is Ellipsis:
    return tuple(read(value, args[0]) for value in values)
  if len(args) != len(values):
    raise ValueError(f'{len(args)} values')
  return tuple(read(value, arg) for value, arg in zip(values, args))


def _fits(value: Any, hint: Any) -> Any:
  """A Python value as a declared type; an int may stand for a float.

  Raises:
    ValueError: it is of another type.
  """
  for kind in sorted(_members(hint), key=lambda kind: kind is float):
    if _is_tuple(kind):
      if isinstance(value, (tuple, list)):
        return _elements(value, kind, _fits)
    elif kind is Any or type(value) is kind:
      return value
    elif kind is float and type(value) is int:
      return float(value)
  raise ValueError(value)


def _literal(text: str) -> Any:
  words = {'true': True, 'false': False, 'none': None}
  if text.lower() in words:
    return words[text.lower()]
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return text


def _members(hint) -> tuple[Any, ...]:
  """The types of a union, or the type itself."""
  if typing.get_origin(hint) in (typing.Union, types.UnionType):
    return typing.get_args(hint)
  return (hint,)


def _optional(hint) -> bool:
  return type(None) in _members(hint)


def _is_tuple(kind) -> bool:
  return (typing.get_origin(kind) or kind) in (tuple, list, Sequence)


def _is_mapping(hint) -> bool:
  origins = [typing.get_origin(kind) or kind for kind in _members(hint)]
  return any(origin in (dict, Mapping) for origin in origins)


def _holds_part(hint, default) -> bool:
  """Whether a field holds a block, so that no text can be parsed as its type.

  Templates are declared as Any, with a class or None as the default.
  """
  kinds = {*_members(hint)} - {type(None)}
  if kinds == {Any}:
    return hint is not Any or inspect.isclass(default)
  return not any(
    kind in (bool, int, float, str, Any)
    or _is_tuple(kind)
    or typing.get_origin(kind) is typing.Literal
    for kind in kinds
  )


def _name(hint) -> str:
  """Name of a type for errors: 'int or None', 'tuple of 2 int'."""
  return ' or '.join(_name_one(kind) for kind in _members(hint))


def _name_one(kind):
  args = typing.get_args(kind)
  if typing.get_origin(kind) is typing.Literal:
    return ' or '.join(repr(choice) for choice in args)
  if _is_tuple(kind):
    if not args:
      return 'tuple'
    count = '' if len(args) == 1 or args[-1] is Ellipsis else f'{len(args)} '
    return f'tuple of {count}{_name(args[0])}'
  if kind is bool:
    return 'bool (true or false)'
  return 'None' if kind is type(None) else getattr(kind, '__name__', str(kind))
