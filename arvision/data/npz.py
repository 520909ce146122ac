"""Reads `.npz` files of unknown origin, large arrays in pieces.

Nothing in a file is executed: pickled arrays are refused. Sizes are checked
before memory is taken, so that a small file cannot ask for much of it.
"""

import contextlib
import dataclasses
import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np

from arvision.data import files
from arvision.errors import DataError

_BLOCK = 2**24
# Largest array that `Npz.read` returns, in bytes.
_LARGEST = 2**31
# No file that numpy writes comes close.
_ENTRIES = 10_000
_FAULTS = (
  OSError,
  ValueError,
  LookupError,
  ArithmeticError,
  TypeError,
  SyntaxError,
  EOFError,
  RecursionError,
  MemoryError,
  NotImplementedError,  # compressed in another way
  RuntimeError,  # encrypted
  struct.error,
  zipfile.BadZipFile,
  zlib.error,
)


@dataclasses.dataclass(frozen=True)
class Header:
  """Shape and dtype of a stored array.

  Attributes:
    shape: its shape.
    dtype: its dtype, without objects.
    fortran: whether the first axis changes fastest.
    start: offset of its first byte in its entry.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  fortran: bool
  start: int

  @property
  def size(self) -> int:
    """Number of bytes."""
    count = self.dtype.itemsize
    for length in self.shape:
      count *= length  # a Python int: numpy's would overflow
    return count


class Npz:
  """The arrays of an `.npz` file.

  Attributes:
    path: the file.
    headers: name -> header of every array.
  """

  def __init__(self, path: str | os.PathLike):
    """Reads the headers.

    Raises:
      DataError: no such file, no `.npz` file, damaged, or with an array of
        Python objects.
    """
    self.path = path
    self.headers: dict[str, Header] = {}
    with self._open() as archive:
      entries = archive.infolist()
      if len(entries) > _ENTRIES:
        raise ValueError(f'{len(entries)} entries')
      for entry in entries:
        name = entry.filename.removesuffix('.npy')
        if name == entry.filename or name in self.headers:
          raise ValueError(f'an entry {ascii(entry.filename)[:80]}')
        with archive.open(entry) as file:
          self.headers[name] = _header(file, entry, name)

  def __contains__(self, name: str) -> bool:
    return name in self.headers

  def read(self, name: str) -> np.ndarray:
    """A whole array.

    Raises:
      DataError: it is not there, too large, damaged, or has values that are not
        finite.
    """
    header = self._find(name)
    if header.size > _LARGEST:
      raise DataError(f"'{self.path}': {name} has {header.size} bytes")
    data = bytearray()
    for block in self._blocks(name, header, _BLOCK):
      data += block
    shape = header.shape[::-1] if header.fortran else header.shape
    array = np.ndarray(shape, header.dtype, data)
    array = array.T if header.fortran else array
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
      raise DataError(f"'{self.path}': {name} has values that are not finite")
    return array

  def rows(self, name: str, count: int) -> Iterator[np.ndarray]:
    """The rows of an array along axis 0, `count` at a time.

    Raises:
      DataError: see `read`.
    """
    header = self._find(name)
    if header.fortran or not header.shape or not header.size:
      raise DataError(
        f"'{self.path}': {name} has shape {header.shape}, "
        'wanted rows one after another'
      )
    row = header.size // header.shape[0]
    for block in self._blocks(name, header, row * count):
      yield np.frombuffer(block, header.dtype).reshape(-1, *header.shape[1:])

  def text(self, name: str) -> str:
    """A stored text; '' if there is none of this name.

    Raises:
      DataError: something else is stored, or it is damaged.
    """
    if name not in self.headers:
      return ''
    header = self.headers[name]
    if header.shape or header.dtype.kind != 'U' or header.size > 2**20:
      raise DataError(f"'{self.path}': {name} is no text")
    with self._reading():
      return str(self.read(name)[()])

  def digest(self) -> str:
    """SHA-256 of the file in hex.

    Raises:
      DataError: it cannot be read.
    """
    found = hashlib.sha256()
    with self._reading(), files.open_regular(self.path) as file:
      while block := file.read(_BLOCK):
        found.update(block)
    return found.hexdigest()

  def _find(self, name) -> Header:
    if name not in self.headers:
      there = ', '.join(list(self.headers)[:8]) or 'nothing'
      raise DataError(f"'{self.path}' has no array {name!r}; it has {there}")
    return self.headers[name]

  def _blocks(self, name, header, size) -> Iterator[bytes]:
    with self._open() as archive, archive.open(f'{name}.npy') as file:
      file.read(header.start)
      left = header.size
      while left:
        block = file.read(min(size, left))
        if len(block) != min(size, left):
          raise EOFError(f'{name} is cut off')
        left -= len(block)
        yield block
      file.read(1)  # checks the CRC

  @contextlib.contextmanager
  def _open(self) -> Iterator[zipfile.ZipFile]:
    with (
      self._reading(),
      files.open_regular(self.path) as file,
      zipfile.ZipFile(file) as archive,
    ):
      yield archive

  @contextlib.contextmanager
  def _reading(self) -> Iterator[None]:
    try:
      yield
    except DataError:
      raise
    except FileNotFoundError as error:
      raise DataError(f"no file '{self.path}'") from error
    except _FAULTS as error:
      text = ' '.join(str(error).split())[:200] or type(error).__name__
      raise DataError(
        f"'{self.path}' is not an .npz file of numpy, or it is damaged: {text}"
      ) from error


def _header(file: IO[bytes], entry: zipfile.ZipInfo, name: str) -> Header:
  # Longer headers, of other versions, are those of arrays of records.
  if np.lib.format.read_magic(file) != (1, 0):
    raise ValueError(f'{ascii(name)[:80]} has a header of another version')
  shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
  header = Header(shape, dtype, fortran, file.tell())
  if dtype.hasobject or dtype.kind not in 'biufUS':
    raise ValueError(f'{ascii(name)[:80]} is an array of {dtype}')
  if any(length < 0 for length in shape):
    raise ValueError(f'{ascii(name)[:80]} has shape {shape}')
  if header.start + header.size != entry.file_size:
    raise ValueError(
      f'{ascii(name)[:80]} of shape {shape}'.replace('\n', ' ')
      + f' does not have the {entry.file_size} bytes of its entry'
    )
  return header
