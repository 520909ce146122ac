"""Reads and writes weight files, and finds the weights of a network in them."""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from arvision import atomic
from arvision.build import suggest
from arvision.errors import ConfigError, DataError
from arvision.importers import graph_file, hub, safetensors_file, torch_file
from arvision.importers.tensors import Unreadable, is_array

SUFFIXES = ('.safetensors', '.pth', '.pt', '.ckpt', '.bin')
# Words in a name that mark weights as an average (EMA) or deny it.
_AVERAGE = {'ema', 'averaged', 'average', 'averages', 'shadow', 'swa'}
_NOT = {'no', 'non', 'not', 'without', 'raw', 'online'}
# Prefixes that wrappers of a network add to every key.
_WRAPPERS = ('module', '_orig_mod')
# Limits of the search in a file.
_DEPTH = 12
_VISITS = 50_000
_NAME = 1000


def read(path: str | os.PathLike) -> Any:
  """Reads a weight file: nested mappings with lazy `tensors.Tensor` leaves.

  Args:
    path: the file, or its name on the Hugging Face hub, see `hub.local`.

  Raises:
    ConfigError: see `hub.local`.
    DataError: no such file, damaged, truncated, of an unknown format, or one
      that would run code.
  """
  path = hub.local(path)
  if not path.is_file():
    raise DataError(f"no file '{path}'")
  with open(path, 'rb') as file:
    head = file.read(64)
  if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 2**27:
    return safetensors_file.read(path)
  if head.startswith((b'PK', b'\x80')):
    return torch_file.read(path)
  if graph_file.begins(head):
    return graph_file.read(path)
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
  """Writes weights as .safetensors or as a file of `torch.save`.

  Args:
    path: the file; its suffix determines the format.
    weights: official key -> array.
    wrapping: see `table.Table`. A .safetensors file has no dicts.

  Raises:
    ConfigError: unknown suffix.
  """
  path = pathlib.Path(path)
  if path.suffix not in SUFFIXES:
    raise ConfigError(
      f"'{path}': wanted a file name that ends in {', '.join(SUFFIXES)}"
    )
  if wrapping.endswith('.'):
    weights, wrapping = {wrapping + k: v for k, v in weights.items()}, ''
  if path.suffix == '.safetensors':
    plain = {k: np.ascontiguousarray(v) for k, v in weights.items()}
    with atomic.whole(path) as new:
      safetensors.numpy.save_file(plain, new)
    return
  tree: Any = weights
  for name in reversed(wrapping.split('.') if wrapping else []):
    tree = {name: tree}
  torch_file.write(path, tree)


@dataclasses.dataclass(frozen=True)
class Place:
  """A state dict inside a file.

  Attributes:
    name: its dotted path in the file, '' for the file itself.
    weights: official key -> array, common prefixes removed.
    count: number of the network's keys in it.
    averaged: whether the weights are an average (EMA).
  """

  name: str
  weights: dict[str, Any]
  count: int = 0
  averaged: bool = False


def find_weights(
  content: Any, wanted: Collection[str], which: str | None = None
) -> tuple[str, dict[str, Any]]:
  """Finds the weights of a network in a file, however they are wrapped.

  The state dict with most of the keys wins, averaged weights before others.

  Args:
    content: of `read`.
    wanted: the keys of the network.
    which: dotted path of the state dict to take; None to choose.

  Returns:
    the dotted path of the state dict, '' for the file itself, and its arrays.

  Raises:
    DataError: the file has none of the keys, or a tensor that cannot be read.
    ConfigError: no state dict at the path `which`.
  """
  wanted = {*wanted}
  found = [*places(content, wanted)]
  if which is not None:
    inside = [p for p in found if f'{p.name}.'.startswith(f'{which}.')]
    if not inside:
      names = dict.fromkeys(p.name or "'' (the file itself)" for p in found)
      raise ConfigError(
        f"the file has no weights under '{which}'." + suggest(which, [*names])
      )
    found = inside
  best = max((p.count for p in found), default=0)
  if not best and which is None:
    keys = [k for p in found for k in p.weights][:5]
    raise DataError(
      'none of the keys of this network is in the file; it holds '
      + (', '.join(keys) + ', ...' if keys else 'no arrays at all')
    )

  def rank(place):
    last = place.name.rpartition('.')[2]
    first = not place.averaged, not _is_average(last), len(place.name)
    return place.name != which, *first

  place = min((p for p in found if p.count == best), key=rank)
  for key in sorted(wanted):
    value = place.weights.get(key)
    if isinstance(value, Unreadable):
      raise DataError(f"'{key}' {value.refusal}")
  return place.name, place.weights


def places(content: Any, wanted: Collection[str] = ()) -> Iterator[Place]:
  """All state dicts in a file, breadth first.

  If one mapping holds several networks under different key prefixes, every
  prefix with most of the wanted keys is a state dict too.

  Args:
    content: of `read`.
    wanted: the keys of the network.

  Raises:
    DataError: too many nested mappings.
  """
  wanted = {*wanted}
  # A mapping may occur several times, and inside itself.
  known: dict[int, tuple[list[Place], list[tuple[str, Mapping]]]] = {}
  queue = collections.deque([('', content, 0)] * isinstance(content, Mapping))
  visits = 0
  while queue:
    name, mapping, depth = queue.popleft()
    visits += 1
    if visits > _VISITS:
      raise DataError(f'the file holds more than {_VISITS} mappings')
    if id(mapping) not in known:
      inner = [
        (str(k), v) for k, v in mapping.items() if isinstance(v, Mapping)
      ]
      known[id(mapping)] = [*_networks(mapping, wanted)], inner
    here, inner = known[id(mapping)]
    for place in here:
      full = _join(name, place.name)
      averaged = place.averaged or any(map(_is_average, full.split('.')))
      yield dataclasses.replace(place, name=full, averaged=averaged)
    if depth < _DEPTH and len(name) < _NAME:
      queue.extend((_join(name, k), v, depth + 1) for k, v in inner)


def _join(*names):
  return '.'.join(name for name in names if name)


def _networks(mapping, wanted) -> Iterator[Place]:
  """The networks in one mapping, named by their key prefixes."""
  arrays = {str(k): v for k, v in mapping.items() if is_array(v)}
  if not arrays:
    return
  counts = collections.Counter({'': 0})
  for key in arrays:
    at = 0
    for _ in range(_DEPTH):
      if key[at:] in wanted:
        counts[key[:at]] += 1
      at = key.find('.', at) + 1
      if not at:
        break
  own = max(_wrappers(counts), key=lambda p: (counts[p], -len(p)))
  others = [
    prefix
    for prefix, count in counts.items()
    if prefix != own and count > len(wanted) / 2 and count >= counts[own]
  ]
  rest = {
    key: array
    for key, array in arrays.items()
    if not key.startswith(tuple(others))
  }
  yield Place(
    '',
    _under(rest, own) if counts[own] else _bare(arrays),
    counts[own],
    # A buffer of torch.optim.swa_utils.AveragedModel.
    averaged='n_averaged' in arrays,
  )
  for prefix in others:
    parts = [p for p in prefix.split('.') if p not in _WRAPPERS]
    place = Place(_join(*parts), _under(arrays, prefix), counts[prefix])
    yield place
    yield from _without_dots(arrays, prefix, place, wanted)


def _without_dots(arrays, prefix, place, wanted) -> Iterator[Place]:
  """Averages of a network that are stored beside it under keys without dots.

  Source: CompVis/latent-diffusion, ldm/modules/ema.py.
  """
  first, _, rest = prefix.partition('.')
  for name in {key.partition('.')[0] for key in arrays if _is_average(key)}:
    plain = {
      key: f'{name}.' + (rest + key).replace('.', '') for key in place.weights
    }
    found = {key: arrays[k] for key, k in plain.items() if k in arrays}
    count = len(wanted & found.keys())
    if count == place.count:
      yield Place(name, found, count, averaged=True)


def _wrappers(prefixes):
  """The prefixes that consist of `_WRAPPERS` alone, '' among them."""
  for prefix in prefixes:
    if all(part in _WRAPPERS for part in prefix.split('.')[:-1]):
      yield prefix


def _under(arrays, prefix):
  return {
    key.removeprefix(prefix): array
    for key, array in arrays.items()
    if key.startswith(prefix)
  }


def _bare(arrays):
  """The arrays without the prefixes that wrappers add to all keys."""
  for name in _WRAPPERS:
    if all(key.startswith(f'{name}.') for key in arrays):
      return _bare(_under(arrays, f'{name}.'))
  return arrays


def _is_average(name):
  """Whether a name marks an average (EMA)."""
  words = {w.lower() for w in re.findall(r'[A-Z]?[a-z]+|[A-Z]+', name[:_NAME])}
  return bool(words & _AVERAGE) and not words & _NOT
