"""What a pickle of torch is read into, and what that may cost.

A pickle may ask for objects that take much memory, and much time to compare or
to walk through. A `Budget` pays for them, and keys are simple.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

from arvision.importers.tensors import Source

_BLOCK = 2**16
# Levels of a container in a container, and of one that is not closed yet.
DEPTH = 128
# Parts of a key, and arguments of a call.
ITEMS = 16
# Text that may be a key of a dict; hashing and comparing it takes its time.
_KEY = 4096
_INT64 = 2**63


class Refused(Exception):
  """A pickle that asks for a function that weights do not need."""


class Budget:
  """Bytes of memory that the objects of a file may take."""

  __slots__ = ('left', 'total')

  def __init__(self, total: int):
    self.left = self.total = total

  def spend(self, cost: int) -> None:
    """Pays for an object before it is made.

    Raises:
      ValueError: there is not so much left.
    """
    self.left -= cost
    if self.left < 0:
      raise ValueError(
        f'its objects take more than {self.total >> 20} MiB besides the tensors'
      )


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
  """A function, class or dtype that a file names; nothing but its name."""

  module: str
  name: str

  def __str__(self) -> str:
    return f'{self.module}.{self.name}'


class Record:
  """An object of the file that is no tensor.

  Attributes:
    name: of its class.
    args: that it was made with.
    state: attribute -> value.
  """

  __slots__ = ('args', 'name', 'state')

  def __init__(self, name: Name, args: tuple = ()):
    self.name = name
    self.args = args
    self.state: dict = {}

  def __repr__(self) -> str:
    return f'Record({self.name})'


class Stream:
  """The bytes of a source, one after another.

  Attributes:
    at: number of the next byte.
  """

  __slots__ = ('_block', '_i', '_low', '_source')

  def __init__(self, source: Source, at: int = 0):
    self._source = source
    self._low = at
    self._block = b''
    self._i = 0

  @property
  def at(self) -> int:
    return self._low + self._i

  def byte(self) -> int:
    """The next byte."""
    if self._i >= len(self._block):
      self._next(1)
    self._i += 1
    return self._block[self._i - 1]

  def take(self, n: int) -> bytes:
    """The next n bytes."""
    if self._i + n > len(self._block):
      self._next(n)
    self._i += n
    return self._block[self._i - n : self._i]

  def line(self) -> str:
    """Text up to the next newline, of a name."""
    found = bytearray()
    while (byte := self.byte()) != 10:
      found.append(byte)
      if len(found) > 256:
        raise ValueError('a name that does not end')
    return found.decode()

  def _next(self, n):
    """Reads the next block, of at least n bytes."""
    at = self.at
    if n > self._source.size - at:
      raise EOFError('its pickle ends too early')
    high = min(self._source.size, at + max(n, _BLOCK))
    self._block, self._low, self._i = bytes(self._source.read(at, high)), at, 0


# The types of mappings, and of all that can hold something.
MAPPINGS = (dict, collections.OrderedDict, collections.Counter)
_CONTAINERS = (*MAPPINGS, list, tuple, set, Record)


def plain_key(key: Any, spend: Callable[[int], None]) -> Any:
  """A key of a dict, or a member of a set, that is quick to hash and compare.

  Raises:
    ValueError: another.
  """
  if type(key) is tuple:
    # Many tuples of one hash can be made, so there may not be many.
    spend(8192)
    if len(key) > ITEMS:
      raise ValueError('a key of many parts')
    for item in key:
      if type(item) is tuple:
        raise ValueError('a key of nested parts')
      plain_key(item, spend)
  elif type(key) in (str, bytes):
    if len(key) > _KEY:
      raise ValueError('a key of very long text')
  elif type(key) is int:
    if not -_INT64 <= key < 2 * _INT64:
      raise ValueError('a key that is a very large number')
  elif key is not None and type(key) not in (float, bool, Name):
    raise ValueError(f'a key that is a {type(key).__name__}')
  return key


def measure(value: Any) -> None:
  """Refuses what is nested more deeply than `DEPTH`; cycles are no nesting."""
  seen: set[int] = set()
  level = [value]
  for _ in range(DEPTH):
    inner: list = []
    for item in level:
      kind = type(item)
      if kind not in _CONTAINERS or id(item) in seen:
        continue
      seen.add(id(item))
      if kind is Record:
        inner += [item.args, item.state]
      else:
        inner.extend(item.values() if kind in MAPPINGS else item)
    level = inner
    if not level:
      return
  raise ValueError(f'its objects lie more than {DEPTH} deep')
