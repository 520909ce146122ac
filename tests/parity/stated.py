"""What a case states about its network and its generation, key by key."""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

# What only describes a case.
_WORDS = ('cls', 'note', 'function')


class NotCompared(Exception):
  """An option that our parts do not have, by name."""


class Stated(Mapping[str, Any]):
  """Options of a case, which records the ones that were read.

  `check` reports every option that nobody read, so a driver cannot drop one
  silently: it builds the model with it, refuses it, or ignores it by name.

  Attributes:
    section: where the options stand in `meta.json`.
    defaults: options that hold where these do not state them.
  """

  def __init__(
    self,
    section: str,
    options: Mapping[str, Any],
    defaults: 'Stated | None' = None,
  ):
    self.section, self.defaults = section, defaults
    self._options = {k: v for k, v in options.items() if k not in _WORDS}
    self._read: set[str] = set()
    self._inner: dict[str, Stated] = {}

  def __getitem__(self, key: str) -> Any:
    self._read.add(key)
    if key in self._options:
      return self._options[key]
    if self.defaults is not None:
      return self.defaults[key]
    raise NotCompared(f'{self.section}.{key} is not stated')

  def __iter__(self) -> Iterator[str]:
    yield from self._options
    yield from (k for k in self.defaults or () if k not in self._options)

  def __len__(self) -> int:
    return sum(1 for _ in self)

  def __contains__(self, key: object) -> bool:
    return key in self._options or key in (self.defaults or ())

  def get(self, key: str, default: Any = None) -> Any:
    try:
      return self[key]
    except NotCompared:
      return default

  def inner(self, key: str) -> 'Stated':
    """The options that stand under a key."""
    if key not in self._inner:
      self._inner[key] = Stated(f'{self.section}.{key}', self[key])
    return self._inner[key]

  def first(self, *keys: str) -> Any:
    """The option that stands under the first of these names that is stated."""
    return self[next((key for key in keys if key in self), keys[-1])]

  def ignore(self, *keys: str) -> None:
    """Marks options that change none of the recorded arrays as read."""
    self._read.update(keys)

  def only(self, **wanted: Any) -> None:
    """Refuses options that are stated with another value than these."""
    for key, value in wanted.items():
      if self.get(key, value) != value:
        raise self.refused(key, f'our parts have {value!r} alone')

  def says(self, key: str, word: str) -> None:
    """Refuses an option in words that does not contain this one."""
    if word not in self.get(key, word):
      raise self.refused(key, f'only "{word}" is compared')

  def greedy(self, **otherwise: Any) -> None:
    """Refuses a generation that does not take the best id everywhere.

    Args:
      **otherwise: options with which it does, where it does not say so itself.
    """
    self.says('kind', 'greedy')
    if 'kind' not in self:
      self.only(**otherwise)
    self.ignore(*otherwise)

  def refused(self, key: str, why: str) -> NotCompared:
    """The exception that names an option and its value."""
    return NotCompared(f'{self.section}.{key}={self[key]!r}: {why}')

  @property
  def unread(self) -> list[str]:
    """'section.key' of every option that nobody asked for."""
    own = [
      key
      for key, value in self._options.items()
      if key not in self._read and not _off(key, value)
    ]
    further = [k for inner in self._inner.values() for k in inner.unread]
    return [*(f'{self.section}.{k}' for k in own), *further]


def _off(key, value):
  """Whether this is a rate of dropping that is 0, as a number or in words."""
  return 'drop' in key and (not value or str(value).startswith('off'))


def generations(section: Mapping[str, Any]) -> dict[str, Stated]:
  """The runs of a section `generation`: 'gen', and more where it names them.

  The text of the call states arguments, 'f(b, 36, cfg=2.0); second run
  (gen_nocfg): cfg=1.0', and so do the other keys of the section. A number
  without a name becomes `argument_N`.

  Raises:
    NotCompared: the text and a key state different values.
  """
  text = section.get('function', '')
  inside, rest = _called(text)
  options = _arguments(inside)
  for key, value in section.items():
    if _plain(options.get(key, value)) != _plain(value):
      raise NotCompared(f'generation.{key} is {options[key]!r} and {value!r}')
  main = Stated('generation', {**options, **section})
  further = {
    name: Stated(f'generation.{name}', _arguments(words), main)
    for name, words in re.findall(r'\b(gen_\w+)\)?:([^;]*)', rest)
  }
  return {'gen': main, **further}


def _plain(value):
  return list(value) if isinstance(value, tuple) else value


def _called(text):
  """What stands between the first pair of brackets, and after it."""
  start = text.find('(')
  depth = 0
  for i, c in enumerate(text):
    depth += (c in '([{') - (c in ')]}')
    if i > start >= 0 and not depth:
      return text[start + 1 : i], text[i + 1 :]
  return '', text


def _arguments(text):
  """{name: value} of 'a, 36, x=1, y=(1, 2)'."""
  parts, depth = [''], 0
  for c in text:
    depth += (c in '([{') - (c in ')]}')
    if c == ',' and not depth:
      parts.append('')
    else:
      parts[-1] += c
  found = {}
  for i, part in enumerate(parts):
    name, equal, value = (s.strip() for s in part.rpartition('='))
    try:
      found[name if equal else f'argument_{i}'] = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      if equal:  # words; without a name they are an input array
        found[name] = value
  return found
