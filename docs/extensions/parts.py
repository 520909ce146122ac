"""Parts of a package as Markdown: fields, types, defaults and docstrings."""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import re
import typing
from typing import Any

import flax.linen as nn

from arvision import build, ranges

_SECTION = re.compile(r'^(Attributes|Args|Returns|Raises|Yields):\n', re.M)
_FIELD = re.compile(r'([\w, ]+?)(?: \([^)]*\))?: (.*)')
_SPECIAL = re.compile(r'([\\*_<>\[\]{}$#|~^])')


def markdown(*names: str, without: tuple[str, ...] = ()) -> str:
  """The parts of modules, or of all modules of packages.

  Args:
    *names: 'heads', 'training.optim', ... below arvision.
    without: names of classes that no config names.
  """
  found = parts(*names, without=without).items()
  return '\n\n'.join(_part(part, path) for path, part in found)


def parts(*names: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
  """What a config may name in modules and packages, by import path."""
  return {
    f'{module.__name__}.{n}'.removeprefix('arvision.'): value
    for name in names
    for module in _modules(importlib.import_module(f'arvision.{name}'))
    for n, value in vars(module).items()
    if getattr(value, '__module__', '') == module.__name__
    if not n.startswith('_') and n not in without and _is_part(value)
  }


def _modules(module):
  if not hasattr(module, '__path__'):
    return [module]
  found = pkgutil.iter_modules(module.__path__, f'{module.__name__}.')
  return [importlib.import_module(m.name) for m in found if not m.ispkg]


def _is_part(value):
  if not inspect.isclass(value):
    return typing.get_type_hints(value).get('return') is _layout()
  if inspect.isabstract(value) or value.__module__.endswith('.base'):
    return False
  if not dataclasses.is_dataclass(value):
    return False
  frozen = value.__dataclass_params__.frozen  # as parts are, and results too
  pytree = hasattr(value, '_flax_dataclass')
  return issubclass(value, nn.Module) or frozen and not pytree


@functools.cache
def _layout():
  return importlib.import_module('arvision.layouts.base').Layout


def _part(part, path):
  text, said = _docs(part)
  lines = [f'## {path}', text]
  kinds = ranges.kinds(part)
  for name, field in (build.fields(part) or {}).items():
    default = '**required**'
    if field.default is not build.REQUIRED:
      default = f'default {_default(field.default)}'
    kind = _kind(kinds.get(name, Any))
    words = escaped(said.get(name, '')) or '—'
    lines.append(f'`{name}` · {kind}{default}\n: {words}')
  return '\n\n'.join(line for line in lines if line)


def _kind(kind):
  wanted = ranges.wanted(kind)
  return f'{escaped(wanted)} · ' if wanted else ''


def _default(value):
  """A default as it would stand in a config."""
  if inspect.isfunction(value) or inspect.isclass(value):
    return f'`{getattr(value, "__name__", value)}`'
  if dataclasses.is_dataclass(value):
    value = type(value)
    return f'a `{build.type_path(value)}`'
  if isinstance(value, functools.partial):
    return f'a `{build.type_path(value.func)}`'
  return f'`{ranges.shown(value)}`'


def _docs(part):
  """The text of a part, and what docstrings say of every field."""
  text, said = '', {}
  classes = reversed(part.__mro__) if inspect.isclass(part) else [part]
  for one in classes:
    doc = inspect.cleandoc(one.__dict__.get('__doc__') or '')
    if doc.startswith(f'{one.__name__}('):
      doc = ''  # made by dataclasses
    first, *pieces = _SECTION.split(doc)
    texts = [first]
    for title, body in zip(pieces[::2], pieces[1::2]):
      # A section ends with the first line that is not indented.
      body, *rest = re.split(r'\n(?=\S)', body, maxsplit=1)
      if title in ('Attributes', 'Args'):
        said.update(_fields(body))
      texts += rest
    if one.__module__.startswith('arvision') and first:
      text = '\n\n'.join(filter(None, map(_text, texts)))
  return text, said


def _fields(body):
  """'name, other: text' and the lines below it, by name."""
  said = {}
  entries = re.split(r'\n(?=\S)', inspect.cleandoc('\n' + body))
  for entry in entries:
    found = _FIELD.fullmatch(' '.join(entry.split()))
    if found:
      said.update({n.strip(): found[2] for n in found[1].split(',')})
  return said


def _text(doc):
  """A docstring's paragraphs; what is indented stays as it is."""
  paragraphs = []
  for paragraph in re.split(r'\n\s*\n', doc.strip('\n')):
    if paragraph.startswith('  '):
      paragraphs.append(f'```text\n{inspect.cleandoc(paragraph)}\n```')
    else:
      paragraphs.append(escaped(' '.join(paragraph.split())))
  return '\n\n'.join(p for p in paragraphs if p)


def escaped(text: str) -> str:
  """Plain text for Markdown; `code` stays code."""
  pieces = re.split('(`[^`]*`)', text)
  pieces[::2] = [_SPECIAL.sub(r'\\\1', piece) for piece in pieces[::2]]
  return ''.join(pieces)
