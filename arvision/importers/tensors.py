"""Lazy tensors of a weight file, read from the file on use.

The file is not trusted: shape and strides are checked against the size of the
storage when a tensor is made.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from arvision.errors import DataError

# Most axes of a numpy array.
AXES = 64
_INT64 = 2**63


class Source(Protocol):
  """Bytes of a file.

  Attributes:
    size: number of bytes.
  """

  size: int

  def read(self, low: int, high: int) -> bytes | memoryview:
    """Bytes [low, high).

    Raises:
      DataError: damaged or truncated.
    """


class Span:
  """A range of a file, as a `Source`."""

  __slots__ = ('path', 'size', 'start')

  def __init__(self, path: str | os.PathLike, start: int, size: int):
    self.path = path
    self.start = start
    self.size = size

  def read(self, low, high):
    with open(self.path, 'rb', buffering=0) as file:
      file.seek(self.start + low)
      # Never more than the file has: `high` may come from the file.
      data = file.read(max(min(high, self.size) - low, 0))
      while data and len(data) < high - low:
        more = file.read(high - low - len(data))
        if not more:
          break
        data += more
    if len(data) != high - low:
      raise DataError(f"'{self.path}' is cut off")
    return data


class Storage:
  """A flat array of elements in a source.

  Attributes:
    dtype: of the elements; None if numpy has no such dtype.
    width: bytes per element.
    count: number of elements.
    source: of the bytes; None until it is known.
    start: offset of the first byte in the source.
    swapped: width of the units to byte-swap, 0 for none.
  """

  __slots__ = ('count', 'dtype', 'source', 'start', 'swapped', 'width')

  def __init__(
    self,
    dtype: np.dtype | None,
    width: int,
    count: int,
    source: Source | None = None,
    start: int = 0,
    swapped: int = 0,
  ):
    self.dtype = dtype
    self.width = width
    self.count = count
    self.source = source
    self.start = start
    self.swapped = swapped

  @property
  def size(self) -> int:
    """Number of bytes."""
    return self.count * self.width

  def read(self, low: int, high: int) -> bytes | memoryview:
    """Bytes [low, high) in the byte order of this machine."""
    assert self.source is not None
    data = self.source.read(self.start + low, self.start + high)
    if self.swapped > 1:
      data = np.frombuffer(data, f'u{self.swapped}').byteswap().tobytes()
    return data


class Tensor:
  """A lazy tensor, a strided view of a storage; `np.asarray` reads it.

  Attributes:
    storage: the storage.
    dtype: of the elements.
    shape: size of every axis.
    strides: stride of every axis, in elements.
    offset: offset of the first element, in elements.
    conj: complex-conjugate on read.
    neg: negate on read.
  """

  __slots__ = ('conj', 'dtype', 'neg', 'offset', 'shape', 'storage', 'strides')

  def __init__(
    self,
    storage: Storage,
    dtype: np.dtype,
    shape: Sequence[int],
    strides: Sequence[int],
    offset: int = 0,
    conj: bool = False,
    neg: bool = False,
  ):
    if len(shape) != len(strides) or len(shape) > AXES:
      raise ValueError(f'a tensor of {len(shape)} axes, {len(strides)} strides')
    for n in (*shape, *strides, offset):
      if type(n) is not int or not 0 <= n < _INT64:
        raise ValueError('a tensor with sizes or strides that are no numbers')
    if math.prod(shape) * dtype.itemsize >= _INT64:
      raise ValueError('a tensor of more numbers than there can be')
    self.storage = storage
    self.dtype = dtype
    self.shape = tuple(shape)
    self.strides = tuple(strides)
    self.offset = offset
    self.conj = conj
    self.neg = neg
    if self.size and self._stop > storage.size:
      raise ValueError(
        f'a tensor asks for {self._stop} bytes of a storage of {storage.size}'
      )

  @property
  def ndim(self) -> int:
    """Number of axes."""
    return len(self.shape)

  @property
  def size(self) -> int:
    """Number of elements."""
    return math.prod(self.shape)

  def __len__(self) -> int:
    if not self.shape:
      raise TypeError('a tensor without axes has no length')
    return self.shape[0]

  def __repr__(self) -> str:
    return f'Tensor(shape={self.shape}, dtype={self.dtype})'

  @property
  def _stop(self):
    """Byte offset after the last element."""
    last = sum((n - 1) * s for n, s in zip(self.shape, self.strides))
    return (self.offset + last + 1) * self.dtype.itemsize

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    width = self.dtype.itemsize
    if not self.size:
      array = np.zeros(self.shape, self.dtype)
    else:
      data = self.storage.read(self.offset * width, self._stop)
      strides = [s * width for s in self.strides]
      # numpy checks again that the strides stay inside the buffer.
      array = np.ndarray(self.shape, self.dtype, data, 0, strides)
    if self.conj:
      array = array.conj()
    if self.neg:
      array = -array
    return array if dtype is None else array.astype(dtype)


class Unreadable:
  """A tensor that numpy cannot represent; it raises DataError on use.

  Attributes:
    path: the file.
    kind: in words, 'a sparse tensor'.
  """

  __slots__ = ('kind', 'path')

  def __init__(self, path: str | os.PathLike, kind: str):
    self.path = path
    self.kind = kind

  def __repr__(self) -> str:
    return f'Unreadable({self.kind})'

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    raise DataError(f"'{self.path}' {self.refusal}")

  @property
  def refusal(self) -> str:
    """The predicate of an error about the file or key."""
    return f'holds {self.kind}, which cannot be read; save it as a dense one'


def is_array(value: Any) -> bool:
  """Whether a value of a weight file is a tensor of any kind."""
  if isinstance(value, np.ndarray):
    return value.dtype.kind != 'O'
  return isinstance(value, (Tensor, Unreadable))
