"""torch's files, read without running what is in them, and written.

A file of `torch.save` is a pickle beside the bytes of its tensors. A pickle may
call any function; this reader knows the few that weights need and refuses
others by name. Neither direction needs torch.

Source: the format of pytorch/pytorch, torch/serialization.py.
"""

import collections
import contextlib
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from arvision.data.base import DataError

# The first pickle of the format from before torch 1.6.
_MAGIC = 0x1950A86A20F9469CFC6C

_DTYPES = {
  'Double': np.float64,
  'Float': np.float32,
  'Half': np.float16,
  'BFloat16': ml_dtypes.bfloat16,
  'Long': np.int64,
  'Int': np.int32,
  'Short': np.int16,
  'Char': np.int8,
  'Byte': np.uint8,
  'Bool': np.bool_,
}


class Record:
  """An object of the file that is no tensor, as its plain attributes."""

  def __init__(self, *args: Any, **kwargs: Any):
    self.args = args
    self.__dict__.update(kwargs)


class _Refused(Exception):
  """A pickle that asks for a function that weights do not need."""


def read(path: str | os.PathLike) -> Any:
  """What was given to `torch.save`, with numpy arrays for tensors.

  Args:
    path: a file of torch, of either format.

  Returns:
    nested dicts, lists and numbers. Arrays of the newer format are mapped from
    the file, so that only those that are used are read.

  Raises:
    DataError: damaged, cut off, or a file that would run code.
  """
  try:
    if zipfile.is_zipfile(path):
      return _read_zip(path)
    return _read_legacy(path)
  except _Refused as error:
    raise DataError(
      f"'{path}' would call {error} when it is opened, which weights do not "
      'need; it was not opened. Save its state dict alone, '
      'torch.save(model.state_dict(), ...), or use a .safetensors file'
    ) from error
  except DataError:
    raise
  # What a damaged pickle raises is not limited to UnpicklingError.
  except Exception as error:
    raise DataError(
      f"'{path}' is damaged or cut off, or no file of torch.save: {error!r}"
    ) from error


def _read_zip(path):
  size = os.path.getsize(path)
  mapped = np.memmap(path, np.uint8, 'r')
  with zipfile.ZipFile(path) as archive:
    entries = {i.filename: i for i in archive.infolist()}
    main = next((n for n in entries if n.endswith('/data.pkl')), None)
    if main is None:
      raise DataError(f"'{path}' is a zip file, but not one of torch.save")
    folder = main.removesuffix('data.pkl')
    order = '<'
    if f'{folder}byteorder' in entries:
      big = archive.read(f'{folder}byteorder') == b'big'
      order = '>' if big else '<'

    def storage(key, dtype, count):
      entry = entries[f'{folder}data/{key}']
      if entry.compress_type != zipfile.ZIP_STORED:
        data = np.frombuffer(archive.read(entry), np.uint8)
      else:
        start = _start_of(archive, entry)
        if start + entry.file_size > size:
          raise EOFError(f'{entry.filename} ends after the file')
        data = mapped[start : start + entry.file_size]
      dtype = np.dtype(dtype).newbyteorder(order)
      return data[: count * dtype.itemsize].view(dtype)

    with archive.open(main) as file:
      return _Unpickler(file, storage).load()


def _start_of(archive, entry):
  """Where the bytes of a zip entry begin; its header may be padded."""
  file = archive.fp
  file.seek(entry.header_offset + 26)
  name, extra = struct.unpack('<HH', file.read(4))
  return entry.header_offset + 30 + name + extra


def _read_legacy(path):
  stores: dict[str, np.ndarray] = {}

  def storage(key, dtype, count):
    return stores.setdefault(key, np.empty(count, dtype))

  with open(path, 'rb') as file:
    if _Unpickler(file, storage).load() != _MAGIC:
      raise DataError(f"'{path}' is a pickle, but not one of torch.save")
    for _ in range(2):  # the version, and facts of the machine
      _Unpickler(file, storage).load()
    result = _Unpickler(file, storage).load()
    # The bytes follow, and are filled into arrays that are there already.
    for key in _Unpickler(file, storage).load():
      (count,) = struct.unpack('<q', file.read(8))
      store = stores[key]
      if count != store.size:
        raise ValueError(f'{count} numbers in place of {store.size}')
      data = file.read(store.nbytes)
      store[:] = np.frombuffer(data, store.dtype, count)
  return result


class _Unpickler(pickle.Unpickler):
  """A reader of pickles that calls nothing but the functions below."""

  def __init__(self, file, storage: Callable):
    super().__init__(file, encoding='latin1')
    self._storage = storage

  def find_class(self, module, name):
    if (module, name) in _KNOWN:
      return _KNOWN[module, name]
    if module == 'torch' and name.removesuffix('Storage') in _DTYPES:
      return _DTYPES[name.removesuffix('Storage')]
    raise _Refused(f'{module}.{name}')

  def persistent_load(self, pid):
    kind, dtype, key, _, count, *_ = pid
    if kind != 'storage':
      raise ValueError(f'a persistent {kind!r}')
    return self._storage(key, dtype, count)


def _tensor(storage, offset, size, stride, *_):
  last = offset + sum((n - 1) * s for n, s in zip(size, stride))
  if offset < 0 or min(stride, default=0) < 0:
    raise ValueError('a tensor with negative strides')
  if 0 not in size and last >= storage.size:
    raise ValueError(f'a tensor of {storage.size} numbers asks for {last + 1}')
  strides = tuple(s * storage.itemsize for s in stride)
  flat = storage[offset:]
  return np.lib.stride_tricks.as_strided(flat, size, strides, writeable=False)


def _scalar(dtype, data=b''):
  if np.dtype(dtype).hasobject:
    raise ValueError('a numpy object')
  return np.frombuffer(data, dtype)[0]


def _encode(text, encoding):
  return text.encode(encoding)


def _parameter(tensor, *_):
  return tensor


_KNOWN: dict[tuple[str, str], Callable] = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch._utils', '_rebuild_tensor_v2'): _tensor,
  ('torch._utils', '_rebuild_parameter'): _parameter,
  ('torch', 'Size'): tuple,
  ('torch', 'device'): Record,
  ('argparse', 'Namespace'): Record,
  ('_codecs', 'encode'): _encode,
  ('numpy', 'dtype'): np.dtype,
  ('numpy.core.multiarray', 'scalar'): _scalar,
  ('numpy._core.multiarray', 'scalar'): _scalar,
}


def write(path: str | os.PathLike, tree: Any) -> None:
  """Writes what `torch.load(weights_only=True)` reads as the same tree.

  Args:
    path: of the file; it appears whole or not at all.
    tree: nested dicts, lists and tuples of arrays, numbers and text.
  """
  partial = f'{os.fspath(path)}.partial'
  arrays: list[np.ndarray] = []
  body = b'\x80\x02' + _pickled(tree, arrays) + b'.'
  try:
    with zipfile.ZipFile(partial, 'w', zipfile.ZIP_STORED) as archive:
      archive.writestr('archive/data.pkl', body)
      archive.writestr('archive/byteorder', 'little')
      for i, array in enumerate(arrays):
        little = array.astype(array.dtype.newbyteorder('<'))
        archive.writestr(f'archive/data/{i}', little.tobytes())
      archive.writestr('archive/version', '3\n')
    os.replace(partial, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(partial)


def _pickled(value, arrays) -> bytes:
  """The opcodes of pickle protocol 2 for a value."""
  if value is None:
    return b'N'
  if isinstance(value, bool):
    return b'\x88' if value else b'\x89'
  if isinstance(value, int):
    data = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8a' + bytes([len(data)]) + data
  if isinstance(value, float):
    return b'G' + struct.pack('>d', value)
  if isinstance(value, str):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data
  if isinstance(value, tuple):
    return b'(' + b''.join(_pickled(v, arrays) for v in value) + b't'
  if isinstance(value, list):
    return b'](' + b''.join(_pickled(v, arrays) for v in value) + b'e'
  if isinstance(value, Mapping):
    pairs = (
      _pickled(k, arrays) + _pickled(v, arrays) for k, v in value.items()
    )
    return b'}(' + b''.join(pairs) + b'u'
  return _pickled_tensor(np.ascontiguousarray(value), np.shape(value), arrays)


def _pickled_tensor(array, shape, arrays):
  kinds = {np.dtype(v): k for k, v in _DTYPES.items()}
  if array.dtype not in kinds:
    raise ValueError(f'torch has no dtype like {array.dtype}')
  # The steps from one place to the next along every axis, in numbers.
  stride = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
  storage = (
    b'('
    + _pickled('storage', arrays)
    + f'ctorch\n{kinds[array.dtype]}Storage\n'.encode()
    + _pickled(str(len(arrays)), arrays)
    + _pickled('cpu', arrays)
    + _pickled(array.size, arrays)
    + b'tQ'
  )
  arrays.append(array)
  facts = b''.join(_pickled(v, arrays) for v in (0, tuple(shape), stride))
  hooks = b'ccollections\nOrderedDict\n)R'
  rebuild = b'ctorch._utils\n_rebuild_tensor_v2\n('
  return rebuild + storage + facts + b'\x89' + hooks + b'tR'
