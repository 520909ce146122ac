"""An unpickler for files of torch that never calls what a pickle names.

A pickle is a program: it names functions and calls them. Here a name is only a
token. `REDUCE` looks it up in a table of builders, which make plain containers
and lazy tensors, and refuses any other name. A pickle can only fill dicts, lists
and sets that were made here. Every object is charged to a budget before it is
made, so that a small file cannot take much memory or time.

Source: the opcodes of CPython, Lib/pickletools.py: those of protocol 2 that
torch.load(weights_only=True) reads, and their equivalents in protocols 3 to 5.
"""

import re
import struct
import sys
from collections.abc import Callable
from typing import Any, Protocol

from arvision.importers.torch_values import (
  DEPTH,
  ITEMS,
  MAPPINGS,
  Budget,
  Name,
  Refused,
  Stream,
  measure,
  plain_key,
)

_NAME = re.compile(r'[A-Za-z_][\w.]{0,200}', re.ASCII)
# Least cost of an opcode.
_STEP = 20


class Builders(Protocol):
  """Builds the objects that a pickle names.

  Attributes:
    made: name -> builder for REDUCE, called with the arguments of the pickle.
    empty: name -> builder for NEWOBJ.
  """

  made: dict[Name, Callable[..., Any]]
  empty: dict[Name, Callable[..., Any]]

  def known(self, name: Name) -> bool:
    """Whether a file of weights may contain a name."""

  def storage(self, pid: tuple) -> Any:
    """The object of a persistent id."""

  def fill(self, target: Any, state: Any) -> None:
    """Sets the state of an object (BUILD)."""


class Machine:
  """Reads one pickle."""

  def __init__(self, stream: Stream, builders: Builders, budget: Budget):
    """Prepares to read.

    Args:
      stream: at the start of the pickle; `load` leaves it at the end.
      builders: build the objects.
      budget: pays for them.
    """
    self._stream = stream
    self._builders = builders
    self._spend = budget.spend
    self._stack: list = []
    self._marks: list[list] = []
    self._memo: list = []
    self._protocol = 2

  def load(self) -> Any:
    """The object of the pickle.

    Raises:
      Refused: it names an unknown function.
      ValueError, IndexError, EOFError: it is damaged, truncated or too large.
    """
    byte, spend = self._stream.byte, self._spend
    while (op := byte()) != 0x2E:
      spend(_STEP)
      action = _OPS.get(op)
      if action is None and self._protocol > 2:
        action = _LATER.get(op)
      if action is None:
        raise ValueError(f'opcode {op:#x} in its pickle')
      action(self)
    found = self._stack.pop()
    measure(found)
    return found

  def _new(self, value):
    """Pushes a new object and charges its size."""
    self._spend(sys.getsizeof(value))
    self._stack.append(value)

  def _marked(self):
    """Pops the objects since the last mark."""
    items = self._stack
    self._stack = self._marks.pop()
    return items

  def _mark(self):
    if len(self._marks) >= DEPTH:
      raise ValueError(f'its objects are nested more than {DEPTH} deep')
    self._spend(64)
    self._marks.append(self._stack)
    self._stack = []

  def _number(self, form: str, length: int) -> Any:
    return struct.unpack(form, self._stream.take(length))[0]

  def _data(self, form: str, length: int, cost: int = 3) -> bytes:
    """Length-prefixed bytes; `cost` covers several copies in memory."""
    n = self._number(form, length)
    self._spend(cost * n)
    return self._stream.take(n)

  def _text(self, form, length):
    # A character may take four bytes.
    text = self._data(form, length, 6).decode('utf-8', 'surrogatepass')
    self._spend(64)
    self._stack.append(text)

  def _proto(self):
    self._protocol = self._stream.byte()
    if self._protocol > 5:
      raise ValueError(f'a pickle of protocol {self._protocol}')

  def _get(self, index):
    self._stack.append(self._memo[index])

  def _put(self, index):
    value = self._stack[-1]
    if index > len(self._memo):
      raise ValueError('its memo has a gap')
    if index == len(self._memo):
      self._memo.append(value)
    else:
      self._memo[index] = value

  def _integer(self):
    data = self._data('B', 1)
    self._new(int.from_bytes(data, 'little', signed=True))

  def _append(self, items):
    target = self._stack[-1]
    if type(target) is not list:
      raise ValueError('appends to what is no list')
    self._spend(_STEP * len(items))
    target.extend(items)

  def _set_item(self):
    value, key = self._stack.pop(), self._stack.pop()
    self._set_items([key, value])

  def _set_items(self, items):
    target = self._stack[-1]
    if type(target) not in MAPPINGS or len(items) % 2:
      raise ValueError('sets items of what is no dict')
    self._spend(7 * _STEP * len(items))
    for i in range(0, len(items), 2):
      target[plain_key(items[i], self._spend)] = items[i + 1]

  def _add_items(self):
    items = self._marked()
    target = self._stack[-1]
    if type(target) is not set:
      raise ValueError('adds to what is no set')
    for item in items:
      self._spend(10 * _STEP)
      target.add(plain_key(item, self._spend))

  def _container(self, value):
    self._spend(4 * _STEP)
    self._new(value)

  def _tuple(self, n):
    items = self._stack[-n:]
    if len(items) != n:
      raise IndexError('its stack is too short')
    del self._stack[-n:]
    self._container(tuple(items))

  def _name(self, module, name):
    if type(module) is not str or type(name) is not str:
      raise ValueError('a name that is no text')
    module = {'__builtin__': 'builtins'}.get(module, module)
    if not _NAME.fullmatch(module) or not _NAME.fullmatch(name):
      raise ValueError('a name that is none')
    found = Name(module, name)
    if not self._builders.known(found):
      raise Refused(str(found))
    self._new(found)

  def _global(self):
    module = self._stream.line()
    self._name(module, self._stream.line())

  def _stack_global(self):
    name = self._stack.pop()
    self._name(self._stack.pop(), name)

  def _called(self, table):
    args, name = self._stack.pop(), self._stack.pop()
    if type(name) is not Name or type(args) is not tuple:
      raise ValueError('calls what is no function')
    if len(args) > ITEMS:  # they are copied
      raise ValueError(f'a call with {len(args)} arguments')
    if name not in table:
      raise Refused(str(name))
    return table[name], args

  def _reduce(self):
    build, args = self._called(self._builders.made)
    self._container(build(*args))

  def _new_object(self):
    build, args = self._called(self._builders.empty)
    self._container(build(*args))

  def _build(self):
    state = self._stack.pop()
    self._builders.fill(self._stack[-1], state)

  def _persistent(self):
    pid = self._stack.pop()
    if type(pid) is not tuple:
      raise ValueError('a persistent id that is none')
    self._container(self._builders.storage(pid))


_U4, _U8 = ('<I', 4), ('<Q', 8)
# Opcodes of protocol 2, and others that torch reads.
_OPS: dict[int, Callable[[Machine], Any]] = {
  0x80: Machine._proto,
  ord('c'): Machine._global,
  ord('R'): Machine._reduce,
  0x81: Machine._new_object,
  ord('b'): Machine._build,
  ord('Q'): Machine._persistent,
  ord('('): Machine._mark,
  ord('N'): lambda m: m._stack.append(None),
  0x88: lambda m: m._stack.append(True),
  0x89: lambda m: m._stack.append(False),
  ord('J'): lambda m: m._new(m._number('<i', 4)),
  ord('K'): lambda m: m._new(m._stream.byte()),
  ord('M'): lambda m: m._new(m._number('<H', 2)),
  ord('G'): lambda m: m._new(m._number('>d', 8)),
  0x8A: Machine._integer,
  ord('X'): lambda m: m._text(*_U4),
  ord('U'): lambda m: m._new(m._data('B', 1).decode()),
  ord(')'): lambda m: m._stack.append(()),
  ord(']'): lambda m: m._container([]),
  ord('}'): lambda m: m._container({}),
  0x8F: lambda m: m._container(set()),
  ord('t'): lambda m: m._container(tuple(m._marked())),
  0x85: lambda m: m._tuple(1),
  0x86: lambda m: m._tuple(2),
  0x87: lambda m: m._tuple(3),
  ord('a'): lambda m: m._append([m._stack.pop()]),
  ord('e'): lambda m: m._append(m._marked()),
  ord('s'): Machine._set_item,
  ord('u'): lambda m: m._set_items(m._marked()),
  ord('h'): lambda m: m._get(m._stream.byte()),
  ord('j'): lambda m: m._get(m._number(*_U4)),
  ord('q'): lambda m: m._put(m._stream.byte()),
  ord('r'): lambda m: m._put(m._number(*_U4)),
}
_LATER: dict[int, Callable[[Machine], Any]] = {
  0x8C: lambda m: m._text('B', 1),
  0x8D: lambda m: m._text(*_U8),
  0x93: Machine._stack_global,
  0x94: lambda m: m._put(len(m._memo)),
  0x95: lambda m: m._stream.take(8),
  0x90: Machine._add_items,
  ord('C'): lambda m: m._new(m._data('B', 1)),
  ord('B'): lambda m: m._new(m._data(*_U4)),
  0x8E: lambda m: m._new(m._data(*_U8)),
}
