"""Reads and writes files of `torch.save`, without torch and without running code.

Such a file is a pickle beside the bytes of its tensors. `read` returns lazy
tensors, whose bytes are read on use. It never calls a function that the pickle
names, see `torch_pickle`.

Source: the format of pytorch/pytorch, torch/serialization.py.
"""

import os
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from arvision import atomic
from arvision.errors import DataError
from arvision.importers.tensors import Span, Storage
from arvision.importers.torch_objects import STORAGES, Objects
from arvision.importers.torch_pickle import Machine
from arvision.importers.torch_values import Budget, Refused, Stream
from arvision.importers.zip_file import Archive

# The first and the second pickle of the legacy format (before torch 1.6).
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
# Memory for everything in a file but its tensors.
_BUDGET = 48 * 2**20
# Small entries of a zip file, and how many bytes of one are read.
_FACTS = (
  'version',
  'byteorder',
  '.format_version',
  '.storage_alignment',
  '.data/serialization_id',
)
_SMALL = 4096


def read(path: str | os.PathLike) -> Any:
  """Reads a file of `torch.save`, zip or legacy format.

  Nested dicts, lists, tuples, sets, numbers and text keep their types. A dtype
  becomes a `torch_values.Name`, a device or namespace a `Record`, and a tensor
  without a numpy equivalent an `Unreadable`. Attributes of tensors and state
  dicts are dropped.

  Args:
    path: the file.

  Returns:
    the content, with lazy `Tensor` leaves. `np.asarray` reads one and raises
    DataError if its bytes are damaged.

  Raises:
    DataError: damaged, truncated, or a file that would run code.
  """
  try:
    with open(path, 'rb') as file:
      zipped = file.read(2) == b'PK'
    return _read_zip(path) if zipped else _read_legacy(path)
  except Refused as error:
    raise DataError(
      f"'{path}' would call {error} on loading, which weights do not need; it "
      'was not loaded. Save the state dict alone, '
      'torch.save(model.state_dict(), ...), or use a .safetensors file'
    ) from error
  except DataError:
    raise
  # A damaged pickle can raise almost any exception.
  except Exception as error:
    raise DataError(
      f"'{path}' is damaged or cut off, or no file of torch.save: "
      + (str(error) or type(error).__name__)
    ) from error


def _read_zip(path):
  budget = Budget(_BUDGET)
  entries = Archive(path, budget.spend).entries
  folder = next(iter(entries), '').split('/')[0]
  main = entries.get(f'{folder}/data.pkl')
  if main is None or any(not e.startswith(f'{folder}/') for e in entries):
    raise DataError(f"'{path}' is a zip file, but not one of torch.save")
  if f'{folder}/constants.pkl' in entries:
    raise DataError(
      f"'{path}' is a program (TorchScript); save its state dict with "
      'torch.save(model.state_dict(), ...)'
    )

  facts = {}
  for name in _FACTS:
    entry = entries.get(f'{folder}/{name}')
    if entry is not None:
      facts[name] = bytes(entry.read(0, min(entry.size, _SMALL))).decode()
  order = facts.get('byteorder', 'little')
  if order not in ('little', 'big'):
    raise ValueError('its byte order is unknown')
  int(facts.get('.storage_alignment', 64))
  found: dict[str, Storage] = {}

  def storage(pid, dtype, width):
    _, _, key, _, count, *more = pid
    entry = entries.get(f'{folder}/data/{key}')
    if entry is None or more:
      raise ValueError('a storage that is not in the file')
    entry.begin()  # checks its header, even if nobody reads it
    if count * width > entry.size:
      raise ValueError(
        f'a storage of {count * width} bytes, of which {entry.size} are there'
      )
    unit = width // 2 if dtype is not None and dtype.kind == 'c' else width
    swapped = unit if order == 'big' else 0
    new = Storage(dtype, width, count, entry, 0, swapped)
    return _same(found, key, new) if new.size else new

  result = Machine(Stream(main), Objects(path, storage, budget), budget).load()
  if not 1 <= int(facts.get('version', 0)) <= 10:
    raise DataError(f"'{path}' is a zip file, but of no version of torch.save")
  return result


def _same(found, key, new):
  """The storage of a key, which is `new` unless the key is known already."""
  old = found.setdefault(key, new)
  if (old.dtype, old.count, old.width) != (new.dtype, new.count, new.width):
    raise ValueError('a storage is described twice, and differently')
  return old


def _read_legacy(path):
  budget = Budget(_BUDGET)
  roots: dict[str, Storage] = {}
  views: dict[str, tuple[str, int, Storage]] = {}

  def storage(pid, dtype, width):
    if len(pid) != 6:
      raise ValueError('a persistent id that is none')
    _, _, key, _, count, view = pid
    root = _same(roots, key, Storage(dtype, width, count))
    if view is None:
      return root
    name, start, size = view
    if type(name) is not str or not type(start) is type(size) is int:
      raise ValueError('a part of a storage that is none')
    if not 0 <= start <= start + size <= count or name in roots:
      raise ValueError('a part of a storage that is outside of it')
    part = Storage(dtype, width, size, None, start * width)
    known = views.setdefault(name, (key, start, part))
    if known[:2] != (key, start) or known[2].count != size:
      raise ValueError('a part of a storage is described twice')
    return known[2]

  source = Span(path, 0, os.path.getsize(path))
  stream = Stream(source)

  def load(of=None):
    return Machine(stream, Objects(path, of, budget), budget).load()

  if load() != _MAGIC:
    raise DataError(f"'{path}' is a pickle, but not one of torch.save")
  if load() != _VERSION:
    raise ValueError('of an unknown version')
  load()  # facts of the machine
  result, keys = load(storage), load()
  if type(keys) is not list or any(type(key) is not str for key in keys):
    raise ValueError('its list of storages is none')
  at = stream.at
  for key in keys:
    (count,) = struct.unpack('<q', source.read(at, at + 8))
    root = roots.get(key)
    if root is None or root.source is not None or count != root.count:
      raise ValueError('a storage is there twice, unused or of another size')
    if at + 8 + root.size > source.size:
      raise EOFError('its storages end too early')
    root.source = Span(path, at + 8, root.size)
    at += 8 + root.size
  if any(root.source is None for root in roots.values()):
    raise ValueError('a storage is not in the file')
  for key, _, part in views.values():
    part.source = roots[key].source
  return result


def write(path: str | os.PathLike, tree: Any) -> None:
  """Writes a file for `torch.load(weights_only=True)`, atomically.

  Args:
    path: the file.
    tree: nested dicts, lists and tuples of arrays, numbers and text.
  """
  arrays: list[np.ndarray] = []
  body = b'\x80\x02' + _pickled(tree, arrays) + b'.'
  with atomic.whole(path) as new, zipfile.ZipFile(new, 'w') as archive:
    archive.writestr('archive/data.pkl', body)
    archive.writestr('archive/byteorder', 'little')
    for i, array in enumerate(arrays):
      little = array.astype(array.dtype.newbyteorder('<'))
      archive.writestr(f'archive/data/{i}', little.tobytes())
    archive.writestr('archive/version', '3\n')


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
  kinds = {np.dtype(v): k for k, v in STORAGES.items()}
  if array.dtype not in kinds:
    raise ValueError(f'torch has no dtype like {array.dtype}')
  # In elements.
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
