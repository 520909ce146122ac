"""Reads the constants of a frozen TensorFlow graph, without TensorFlow.

Such a file is a `GraphDef` message. Only what a weight needs is decoded: the
name, the operation and the constant of every node. Nothing is executed.

Source: tensorflow/core/framework/graph.proto, node_def.proto, attr_value.proto,
tensor.proto and tensor_shape.proto, and the wire format of protocol buffers.
"""

import math
import mmap
import os
import re
from collections.abc import Iterator

import numpy as np

from arvision.errors import DataError
from arvision.importers.tensors import Span, Storage, Tensor

# Field numbers.
_NODE = 1
_NAME, _OP, _ATTR = 1, 2, 5
_KEY, _VALUE = 1, 2
_TENSOR = 8
_DTYPE, _SHAPE, _CONTENT, _FLOATS = 1, 2, 4, 5
_DIM, _SIZE = 2, 1
_FLOAT32 = 1
# Wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Most fields that are looked at; the 2015 Inception network has some 20,000.
_FIELDS = 1_000_000


def begins(head: bytes) -> bool:
  """Whether a file that begins with these bytes may be a graph.

  Its first field is a node, whose first field is the name.
  """
  return bool(re.match(rb'\n[\x80-\xff]{0,4}[\0-\x7f]\n', head))


def read(path: str | os.PathLike) -> dict[str, Tensor]:
  """Reads the float32 constants of a graph as lazy tensors, by node name.

  Raises:
    DataError: damaged, truncated, or no graph.
  """
  try:
    with (
      open(path, 'rb') as file,
      mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
      return _Graph(path, data).constants()
  except (ValueError, IndexError) as error:
    raise DataError(
      f"'{path}' is a damaged or truncated TensorFlow graph: {error}"
    ) from error


class _Graph:
  """A message in a file.

  Attributes:
    path: the file.
    data: its bytes.
    left: number of fields that may still be looked at.
  """

  def __init__(self, path, data):
    self.path, self.data, self.left = path, data, _FIELDS

  def constants(self) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for number, node in self._messages(0, len(self.data)):
      if number != _NODE:
        continue
      name, tensor = self._node(*node)
      if tensor is None:
        continue
      if name in found:
        raise ValueError(f"two nodes are called '{name}'")
      found[name] = tensor
    return found

  def _node(self, low, high):
    """Name and constant of a node; None for another operation or dtype."""
    name, op, tensor = '', b'', None
    for number, (start, stop) in self._messages(low, high):
      if number == _NAME:
        name = self.data[start:stop].decode()
      elif number == _OP:
        op = self.data[start:stop]
      elif number == _ATTR:
        entry = dict(self._messages(start, stop))
        key = entry.get(_KEY, (0, 0))
        if self.data[slice(*key)] == b'value' and _VALUE in entry:
          value = dict(self._messages(*entry[_VALUE]))
          tensor = value.get(_TENSOR)
    if op != b'Const' or tensor is None:
      return name, None
    return name, self._tensor(*tensor)

  def _tensor(self, low, high):
    dtype, shape, lists = 0, [], []
    for number, wire, value in self._fields(low, high):
      if (number, wire) == (_DTYPE, _VARINT):
        dtype = value
      elif (number, wire) == (_SHAPE, _BYTES):
        shape = [
          self._size(*dim)
          for inner, dim in self._messages(*value)
          if inner == _DIM
        ]
      elif number in (_CONTENT, _FLOATS) and wire in (_BYTES, _FIXED32):
        lists.append(value)
    # No weight is empty or in pieces.
    if dtype != _FLOAT32 or len(lists) != 1:
      return None
    ((start, stop),) = lists
    count = (stop - start) // 4
    storage = Storage(
      np.dtype('<f4'), 4, count, Span(self.path, start, stop - start)
    )
    # A single value stands for all.
    strides = [
      math.prod(shape[i + 1 :]) if count > 1 else 0 for i in range(len(shape))
    ]
    return Tensor(storage, np.dtype('<f4'), shape, strides)

  def _size(self, low, high):
    """The length of an axis."""
    for number, wire, value in self._fields(low, high):
      if (number, wire) == (_SIZE, _VARINT):
        return value
    return 0

  def _messages(self, low, high) -> Iterator[tuple[int, tuple[int, int]]]:
    """Number and span of the fields that are bytes, text or messages."""
    for number, wire, value in self._fields(low, high):
      if wire == _BYTES:
        yield number, value

  def _fields(self, low, high):
    """(number, wire type, value or span) of the fields of a message."""
    at = low
    while at < high:
      self.left -= 1
      if self.left < 0:
        raise ValueError(f'more than {_FIELDS} fields')
      tag, at = self._varint(at, high)
      number, wire = tag >> 3, tag & 7
      if wire == _VARINT:
        value, at = self._varint(at, high)
      elif wire in (_FIXED64, _FIXED32, _BYTES):
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if size is None:
          size, at = self._varint(at, high)
        value, at = (at, at + size), at + size
      else:
        raise ValueError(f'a field of the unknown wire type {wire}')
      if at > high or not number:
        raise ValueError('a field ends after its message')
      yield number, wire, value

  def _varint(self, at, high):
    """An integer in groups of 7 bits, lowest first, and where it ends."""
    value = 0
    for i in range(10):
      if at + i >= high:
        raise ValueError('an integer ends after its message')
      byte = self.data[at + i]
      value |= (byte & 127) << 7 * i
      if byte < 128:
        return value, at + i + 1
    raise ValueError('an integer of more than 10 bytes')
