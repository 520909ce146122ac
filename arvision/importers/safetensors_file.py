"""Reads .safetensors files, tensor by tensor.

Source: the format of huggingface/safetensors, README.md: the length of the header
in eight bytes, a JSON header, and the bytes of the tensors without gaps.
"""

import json
import math
import os

import ml_dtypes
import numpy as np

from arvision.errors import DataError
from arvision.importers.tensors import (
  AXES,
  Span,
  Storage,
  Tensor,
  Unreadable,
)

# Longest header: some 25,000 tensors. Parsed JSON takes up to 25 times its length.
_LONGEST = 2 * 2**20
_DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'I64': np.int64,
  'I32': np.int32,
  'I16': np.int16,
  'I8': np.int8,
  'U64': np.uint64,
  'U32': np.uint32,
  'U16': np.uint16,
  'U8': np.uint8,
  'BOOL': np.bool_,
  'C64': np.complex64,
  'F8_E4M3': ml_dtypes.float8_e4m3fn,
  'F8_E5M2': ml_dtypes.float8_e5m2,
  'F8_E8M0': ml_dtypes.float8_e8m0fnu,
}


def read(path: str | os.PathLike) -> dict[str, Tensor | Unreadable]:
  """Reads a file as lazy tensors by name; `np.asarray` reads one.

  Raises:
    DataError: damaged, truncated, or a header that does not match the file.
  """
  try:
    return _read(path)
  except DataError:
    raise
  except (ValueError, TypeError, KeyError, RecursionError) as error:
    raise DataError(f"'{path}' is damaged or cut off: {error}") from error


def _read(path):
  whole = Span(path, 0, os.path.getsize(path))
  start = 8 + int.from_bytes(whole.read(0, 8), 'little')
  if start > whole.size:
    raise ValueError('its header ends after the file')
  if start > _LONGEST:
    raise ValueError(f'a header of more than {_LONGEST >> 20} MiB')
  header = json.loads(whole.read(8, start), object_pairs_hook=_once)
  if type(header) is not dict:
    raise ValueError('its header is no JSON object')
  header.pop('__metadata__', None)
  found: dict[str, Tensor | Unreadable] = {}
  spans = []
  for name, entry in header.items():
    low, high = entry['data_offsets']
    shape = entry['shape']
    if type(shape) is not list or len(shape) > AXES:
      raise ValueError('a tensor without a shape')
    if not type(low) is type(high) is int or not 0 <= low <= high:
      raise ValueError('a tensor lies nowhere')
    spans.append((low, high))
    if start + high > whole.size:
      raise ValueError('a tensor ends after the file')
    if entry['dtype'] not in _DTYPES:
      found[name] = Unreadable(path, 'a tensor of a dtype that numpy lacks')
      continue
    dtype = np.dtype(_DTYPES[entry['dtype']])
    span = Span(path, start + low, high - low)
    storage = Storage(dtype, 1, high - low, span)
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    found[name] = tensor = Tensor(storage, dtype, shape, strides)
    if tensor.size * dtype.itemsize != high - low:
      raise ValueError('a tensor of another size than its bytes')
  at = 0
  for low, high in sorted(spans):
    if low != at:
      raise ValueError('its tensors overlap or leave a gap')
    at = high
  if start + at != whole.size:
    raise ValueError('bytes after its tensors')
  return found


def _once(pairs):
  """A JSON object without duplicate names."""
  found = dict(pairs)
  if len(found) != len(pairs):
    raise ValueError('a name is there twice')
  return found
