"""Weight files of any kind: read, searched for the weights, written."""

import os
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from arvision.build import ConfigError, suggest
from arvision.data.base import DataError
from arvision.importers import torch_file

SUFFIXES = ('.safetensors', '.pth', '.pt', '.ckpt', '.bin')
# What running averages are called in the releases.
_AVERAGES = re.compile(r'ema|average', re.IGNORECASE)
# What wrappers of a network put before every key.
_PREFIXES = ('module.', '_orig_mod.')


def read(path: str | os.PathLike) -> Any:
  """The content of a weight file: nested mappings with numpy arrays.

  Raises:
    DataError: no such file, damaged, cut off, of a kind that is not known, or
      one that would run code.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise DataError(f"no file '{path}'")
  with open(path, 'rb') as file:
    head = file.read(64)
  if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 2**27:
    try:
      return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
      raise DataError(f"'{path}' is damaged or cut off: {error}") from error
  if head.startswith((b'PK', b'\x80')):
    return torch_file.read(path)
  if head.startswith(b'version https://git-lfs'):
    raise DataError(
      f"'{path}' is the pointer of a git-lfs file; fetch it (git lfs pull)"
    )
  if head.lstrip()[:1] == b'<':
    raise DataError(f"'{path}' is a web page: the download did not succeed")
  size = path.stat().st_size
  raise DataError(
    f"'{path}' ({size} bytes) is neither a .safetensors file nor one of "
    'torch.save, or it is cut off'
  )


def write(
  path: str | os.PathLike, weights: dict[str, np.ndarray], wrapping: str = ''
) -> None:
  """Writes weights as .safetensors, or as torch.save does.

  Args:
    path: of the file; its suffix says which.
    weights: official key -> array.
    wrapping: keys with dots between that the weights are put under in a file
      of torch, '' for none. A .safetensors file holds weights alone.

  Raises:
    ConfigError: another suffix.
  """
  path = pathlib.Path(path)
  if path.suffix not in SUFFIXES:
    raise ConfigError(
      f"'{path}': wanted a file name that ends in {', '.join(SUFFIXES)}"
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.safetensors':
    partial = path.with_name(f'{path.name}.partial')
    plain = {k: np.ascontiguousarray(v) for k, v in weights.items()}
    safetensors.numpy.save_file(plain, partial)
    partial.replace(path)
    return
  tree: Any = weights
  for name in reversed(wrapping.split('.') if wrapping else []):
    tree = {name: tree}
  torch_file.write(path, tree)


def find_weights(
  content: Any, wanted: Collection[str], which: str | None = None
) -> tuple[str, dict[str, np.ndarray]]:
  """The weights of one network in a file, however they are wrapped.

  Args:
    content: of `read`.
    wanted: some of the network's keys. Where several places of the file hold
      them equally well, running averages go before others.
    which: the place to take, as `places` names it; None to choose.

  Returns:
    The name of the place, '' for the file itself, and its arrays.

  Raises:
    DataError: nothing in the file has one of these keys.
    ConfigError: no place of that name.
  """
  found = dict(places(content))
  if which is not None:
    if which not in found:
      raise ConfigError(
        f"the file has no weights under '{which}'."
        + suggest(which, [n or "'' (the file itself)" for n in found])
      )
    return which, found[which]
  counts = {n: len({*wanted} & {*w}) for n, w in found.items()}
  best = max(counts.values(), default=0)
  if not best:
    keys = [k for w in found.values() for k in w][:5]
    raise DataError(
      'none of the keys of this network is in the file; it holds '
      + (', '.join(keys) + ', ...' if keys else 'no arrays at all')
    )
  good = [name for name, count in counts.items() if count == best]
  averages = [name for name in good if _AVERAGES.search(name)]
  name = min(averages or good, key=len)
  return name, found[name]


def places(
  content: Any, name: str = ''
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
  """(where, weights) of everything in a file that maps keys to arrays."""
  if not isinstance(content, Mapping):
    return
  arrays = {
    str(k): v
    for k, v in content.items()
    if isinstance(v, np.ndarray) and v.dtype.kind != 'O'
  }
  if arrays:
    yield name, _bare(arrays)
  for key, value in content.items():
    yield from places(value, f'{name}.{key}' if name else str(key))


def _bare(arrays):
  """Without the prefix that a wrapper has put before all keys."""
  for prefix in _PREFIXES:
    if all(key.startswith(prefix) for key in arrays):
      return _bare({k.removeprefix(prefix): v for k, v in arrays.items()})
  return arrays
