"""Values and limits of the unpickler.

A hostile pickle may ask for objects that take much memory, or much time to
compare or traverse. A `Budget` bounds them, and keys must be simple.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

from arvision.importers.tensors import Source

_BLOCK = 2**16
# Most levels of nested containers, and of open marks.
DEPTH = 128
# Most items of a tuple that is a key, and arguments of a call.
ITEMS = 16
# Longest text of a key: it is hashed and compared.
_KEY = 4096
_INT64 = 2**63


class Refused(Exception):
  """A pickle asks for a function that weights do not need."""


class Budget:
  """Memory, in bytes, that the objects of a file may take."""

  __slots__ = ('left', 'total')

  def __init__(self, total: int):
    self.left = self.total = total

  def spend(self, cost: int) -> None:
    """Charges an object before it is made.

    Raises:
      ValueError: the budget is exhausted.
    """
    self.left -= cost
    if self.left < 0:
      raise ValueError(
        f'its objects take more than {self.total >> 20} MiB besides the tensors'
      )


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
  """The name of a function, class or dtype, never resolved."""

  module: str
  name: str

  def __str__(self) -> str:
    return f'{self.module}.{self.name}'


class Record:
  """An object of the file that is neither a container nor a tensor.

  Attributes:
    name: name of its class.
    args: constructor arguments.
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
  """A buffered reader over a source.

  Attributes:
    at: offset of the next byte.
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
    """A name that ends at the next newline."""
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


# Types of mappings, and of all containers.
MAPPINGS = (dict, collections.OrderedDict, collections.Counter)
_CONTAINERS = (*MAPPINGS, list, tuple, set, Record)


def plain_key(key: Any, spend: Callable[[int], None]) -> Any:
  """Checks that a dict key or set member is cheap to hash and compare.

  Returns:
    the key.

  Raises:
    ValueError: it is not.
  """
  if type(key) is tuple:
    # Tuples with equal hashes are easy to make, so each is expensive.
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
  """Raises ValueError if a value is nested deeper than `DEPTH`; cycles are not."""
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
  raise ValueError(f'its objects are nested more than {DEPTH} deep')
