"""Builders of the objects in a pickle of torch: containers, tensors, dtypes."""

import collections
import os
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from arvision.importers.tensors import Storage, Tensor, Unreadable
from arvision.importers.torch_values import (
  MAPPINGS,
  Budget,
  Name,
  Record,
  plain_key,
)

# Storage classes of torch, without the suffix 'Storage', and their dtypes.
STORAGES = {
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
  'ComplexFloat': np.complex64,
  'ComplexDouble': np.complex128,
}
# Storage classes without a numpy dtype, and their bytes per element.
_QUANTIZED = {
  'QInt8': 1,
  'QUInt8': 1,
  'QInt32': 4,
  'QUInt4x2': 1,
  'QUInt2x4': 1,
}
_DTYPES = {
  **{
    name: np.dtype(name)
    for kind, sizes in {
      'float': (16, 32, 64),
      'complex': (64, 128),
      'int': (8, 16, 32, 64),
      'uint': (8, 16, 32, 64),
    }.items()
    for name in (f'{kind}{size}' for size in sizes)
  },
  'bool': np.dtype(bool),
  **{
    name: np.dtype(getattr(ml_dtypes, name))
    for name in (
      'bfloat16',
      'float8_e4m3fn',
      'float8_e4m3fnuz',
      'float8_e5m2',
      'float8_e5m2fnuz',
      'float8_e8m0fnu',
    )
  },
}
# Other dtypes and quantization schemes of torch that a file may name.
_OTHER = re.compile(
  r'complex32|float4_e2m1fn_x2|bits(8|16|1x8|2x4|4x2)|u?int[1-7]|'
  r'qint(8|32)|quint(8|4x2|2x4)|'
  r'per_(tensor|channel)_(affine|symmetric)|per_channel_affine_float_qparams'
)
_DEVICE = re.compile(r'(cpu|cuda|mps|xpu|hpu|npu|xla)(:\d{1,4})?')
_LAYOUT = re.compile(r'torch\.(strided|jagged|sparse_(coo|csr|csc|bsr|bsc))')
_KINDS = {
  '_rebuild_sparse_tensor': 'a sparse tensor',
  '_rebuild_qtensor': 'a quantized tensor',
  '_rebuild_nested_tensor': 'a nested tensor',
  '_rebuild_meta_tensor_no_storage': 'a tensor without numbers (meta)',
  '_rebuild_wrapper_subclass': 'a tensor of another class',
  '_rebuild_device_tensor_from_numpy': 'a tensor of another device',
}
_TENSOR = Name('torch', 'Tensor')
_PARAMETER = Name('torch.nn.parameter', 'Parameter')
_UNTYPED = Name('torch.storage', 'UntypedStorage')
_BYTE_CODECS = ('latin1', 'latin-1', 'utf-8', 'ascii')
# State of a plain numeric dtype in numpy's pickles, after the byte order.
_PLAIN = (None, None, None, -1, -1, 0)


class NumpyDtype:
  """A numpy dtype during unpickling, mutable.

  Attributes:
    dtype: a plain numeric dtype.
  """

  __slots__ = ('dtype',)

  def __init__(self, dtype: np.dtype):
    self.dtype = dtype


class Objects:
  """The builders of one file; see `torch_pickle.Builders`.

  Attributes:
    made, empty: see there.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    storage: Callable[[tuple, np.dtype | None, int], Storage] | None,
    budget: Budget,
  ):
    """Prepares the builders.

    Args:
      path: the file, for errors of `Unreadable`.
      storage: (persistent id, dtype, bytes per element) -> `Storage`; None if
        the pickle may not have storages.
      budget: pays for the objects.
    """
    self._path = path
    self._storage = storage
    self._spend = budget.spend
    utils = {
      '_rebuild_tensor': self._tensor,
      '_rebuild_tensor_v2': self._tensor,
      '_rebuild_tensor_v3': self._tensor_of_dtype,
      '_rebuild_parameter': self._parameter,
      '_rebuild_parameter_with_state': self._parameter,
      '_rebuild_device_tensor_from_cpu_tensor': self._moved,
      **{
        name: lambda *_, kind=kind: Unreadable(path, kind)
        for name, kind in _KINDS.items()
      },
    }
    self.made: dict[Name, Callable[..., Any]] = {
      **{Name('torch._utils', name): make for name, make in utils.items()},
      Name('torch._tensor', '_rebuild_from_type_v2'): self._with_attributes,
      _PARAMETER: self._parameter,
      Name('torch', 'Size'): self._size,
      Name('torch', 'device'): self._device,
      Name('torch.serialization', '_get_layout'): self._layout,
      Name('collections', 'OrderedDict'): self._ordered,
      Name('collections', 'Counter'): self._counter,
      Name('builtins', 'set'): self._set,
      Name('builtins', 'complex'): self._complex,
      Name('builtins', 'bytearray'): self._bytearray,
      Name('_codecs', 'encode'): self._encoded,
      Name('numpy', 'dtype'): self._numpy_dtype,
      Name('numpy.core.multiarray', 'scalar'): self._scalar,
      Name('numpy._core.multiarray', 'scalar'): self._scalar,
    }
    namespace = Name('argparse', 'Namespace')
    self.empty: dict[Name, Callable[..., Any]] = {
      Name('collections', 'OrderedDict'): lambda: collections.OrderedDict(),
      Name('collections', 'Counter'): lambda: collections.Counter(),
      Name('builtins', 'set'): lambda: set(),
      namespace: lambda: Record(namespace),
      _PARAMETER: self._parameter,
    }

  def known(self, name: Name) -> bool:
    """See `Builders`."""
    if name in self.made or name in self.empty or name in (_TENSOR, _UNTYPED):
      return True
    if name.module not in ('torch', 'torch.cuda'):
      return False
    kind = name.name.removesuffix('Storage')
    if kind != name.name:
      return kind in STORAGES or kind in _QUANTIZED
    return name.module == 'torch' and (
      kind in _DTYPES or bool(_OTHER.fullmatch(kind))
    )

  def storage(self, pid: tuple) -> Storage:
    """See `Builders`."""
    if self._storage is None or not 5 <= len(pid) <= 6:
      raise ValueError('a persistent id that is none')
    tag, kind, key, location, count, *_ = pid
    if tag != 'storage' or type(kind) is not Name or type(location) is not str:
      raise ValueError('a persistent id that is none')
    if not _DEVICE.fullmatch(location):
      raise ValueError('a storage of an unknown device')
    if type(key) is not str or len(key) > 200:
      raise ValueError('a storage without a name')
    if type(count) is not int or not 0 <= count < 2**56:
      raise ValueError('a storage of a number of bytes that cannot be')
    name = kind.name.removesuffix('Storage')
    if kind == _UNTYPED:
      name = 'Byte'
    elif name == kind.name:
      raise ValueError('a storage of no dtype')
    if name in _QUANTIZED:
      return self._storage(pid, None, _QUANTIZED[name])
    dtype = np.dtype(STORAGES[name])
    return self._storage(pid, dtype, dtype.itemsize)

  def fill(self, target: Any, state: Any) -> None:
    """See `Builders`."""
    if type(target) is NumpyDtype:
      self._fill_dtype(target, state)
    elif type(state) not in MAPPINGS:
      raise ValueError('a state that is no dict')
    elif type(target) is Record:
      target.state = state
    # State dicts carry the versions of modules as attributes.
    elif type(target) not in MAPPINGS[1:]:
      raise ValueError(f'a state of a {type(target).__name__}')

  def _tensor(
    self, storage, offset, size, stride, grad=False, hooks=None, facts=None
  ):
    if type(storage) is not Storage:
      raise ValueError('a tensor of what is no storage')
    return self._view(storage, storage.dtype, offset, size, stride, grad, facts)

  def _tensor_of_dtype(
    self, storage, offset, size, stride, grad, hooks, dtype, facts=None
  ):
    if type(storage) is not Storage or type(dtype) is not Name:
      raise ValueError('a tensor of what is no storage')
    found = _DTYPES.get(dtype.name) if dtype.module == 'torch' else None
    return self._view(storage, found, offset, size, stride, grad, facts)

  def _view(self, storage, dtype, offset, size, stride, grad, facts):
    if type(size) not in (tuple, list) or type(stride) not in (tuple, list):
      raise ValueError('a tensor without a shape')
    if dtype is None:
      return Unreadable(self._path, 'a tensor of a dtype that numpy lacks')
    if facts is not None and type(facts) not in MAPPINGS:
      raise ValueError('a tensor with facts that are none')
    marks = {'conj': False, 'neg': False, **(facts or {})}
    conj, neg = marks.pop('conj'), marks.pop('neg')
    _check_flags(dtype, grad, conj, neg)
    if marks:
      raise ValueError('a tensor with unknown facts')
    return Tensor(storage, dtype, size, stride, offset, conj, neg)

  def _parameter(self, tensor, grad=True, hooks=None, state=None):
    if type(tensor) is Tensor:
      _check_flags(tensor.dtype, grad)
    elif type(tensor) is not Unreadable:
      raise ValueError('a parameter of what is no tensor')
    # Drops `state`: attributes are not weights.
    return tensor

  def _with_attributes(self, function, kind, args, state):
    if type(function) is not Name or type(args) is not tuple or len(args) > 16:
      raise ValueError('a tensor of what is no function')
    if function.module != 'torch._utils' or kind not in (_TENSOR, _PARAMETER):
      return Unreadable(self._path, 'a tensor of another class')
    return self.made[function](*args)

  def _moved(self, tensor, dtype, device, grad):
    if type(tensor) is not Tensor or type(dtype) is not Name:
      raise ValueError('a tensor of what is no tensor')
    if _DTYPES.get(dtype.name) != tensor.dtype:
      return Unreadable(self._path, 'a tensor of another device')
    return self._parameter(tensor, grad)

  def _size(self, items=()):
    if type(items) not in (tuple, list) or len(items) > 64:
      raise ValueError('a size that is none')
    if any(type(n) is not int for n in items):
      raise ValueError('a size of what are no numbers')
    return tuple(items)

  def _device(self, name, number=0):
    if type(name) is not str or not _DEVICE.fullmatch(name):
      raise ValueError('an unknown device')
    return Record(Name('torch', 'device'), (name, number))

  def _layout(self, name):
    if type(name) is not str or not _LAYOUT.fullmatch(name):
      raise ValueError('an unknown layout')
    return Record(Name('torch', 'layout'), (name,))

  def _ordered(self, pairs=()):
    if type(pairs) not in (tuple, list):
      raise ValueError('a dict of what are no items')
    found = collections.OrderedDict()
    for pair in pairs:
      self._spend(256)
      if type(pair) not in (tuple, list) or len(pair) != 2:
        raise ValueError('a dict of what are no items')
      found[plain_key(pair[0], self._spend)] = pair[1]
    return found

  def _counter(self, counts=None):
    if counts is not None and type(counts) not in MAPPINGS:
      raise ValueError('counts that are none')
    self._spend(128 * len(counts or ()))
    return collections.Counter(counts)

  def _set(self, items=()):
    if type(items) not in (tuple, list):
      raise ValueError('a set of what are no items')
    found = set()
    for item in items:
      self._spend(128)
      found.add(plain_key(item, self._spend))
    return found

  def _complex(self, real=0.0, imag=0.0):
    if type(real) not in (int, float) or type(imag) not in (int, float):
      raise ValueError('a complex number of what are no numbers')
    return complex(real, imag)

  def _encoded(self, text, codec='utf-8'):
    if type(text) is not str or codec not in _BYTE_CODECS:
      raise ValueError('bytes of what is no text')
    self._spend(4 * len(text))
    return text.encode(codec)

  def _bytearray(self, data=b'', codec='latin-1'):
    if type(data) is str:
      data = self._encoded(data, codec)
    if type(data) is not bytes:
      raise ValueError('bytes of what is no text')
    self._spend(len(data))
    return bytearray(data)

  def _numpy_dtype(self, code, align=False, copy=False):
    if type(code) is not str or not re.fullmatch(r'[biufc]\d{1,2}', code):
      raise ValueError('a dtype of numpy that is not of plain numbers')
    return NumpyDtype(np.dtype(code))

  def _fill_dtype(self, target, state):
    plain = type(state) is tuple and len(state) == 8
    if not plain or any(type(s) not in (int, str, type(None)) for s in state):
      raise ValueError('a dtype of numpy with an unknown state')
    if state[0] != 3 or state[1] not in ('<', '>', '|', '='):
      raise ValueError('a dtype of numpy with an unknown state')
    if state[2:] != _PLAIN:
      raise ValueError('a dtype of numpy that is not of plain numbers')
    target.dtype = target.dtype.newbyteorder(state[1])

  def _scalar(self, dtype, data):
    if type(dtype) is not NumpyDtype or type(data) is not bytes:
      raise ValueError('a number of numpy that is none')
    if len(data) != dtype.dtype.itemsize:
      raise ValueError('a number of numpy of another size')
    return np.frombuffer(data, dtype.dtype)[0]


def _check_flags(dtype, grad, conj=False, neg=False):
  """Raises ValueError for flags that torch never sets on this dtype."""
  if not type(grad) is type(conj) is type(neg) is bool:
    raise ValueError('a tensor with flags that are none')
  kind = dtype.kind
  if (grad and kind not in 'fcV') or (conj and kind != 'c'):
    raise ValueError(f'a flag that no tensor of {dtype} has')
  if neg and kind not in 'fci':
    raise ValueError(f'a flag that no tensor of {dtype} has')
