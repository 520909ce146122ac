"""Splits batches so that a call fits into memory."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from arvision.errors import ConfigError
from arvision.parallel.host import Placement

# Shares of the free memory to use. Other programs need memory of the host too,
# and the CPU compiler does not count everything that a program takes.
_SHARE = {'cpu': 0.25}
_SHARE_OF_DEVICE = 0.9
_CGROUPS = (
  ('memory.max', 'memory.current', 'memory.stat'),
  (
    'memory/memory.limit_in_bytes',
    'memory/memory.usage_in_bytes',
    'memory/memory.stat',
  ),
)


class Rows:
  """A batched function that splits batches which do not fit into memory.

  The function is compiled for the whole batch. If that program needs more
  memory than is free, it is compiled for a smaller batch and called several
  times.
  """

  def __init__(
    self,
    placement: Placement,
    function: Callable,
    name: str,
    at_once: int | None = None,
    say: Callable[[str], None] = lambda text: None,
  ):
    """Takes the function; calls compile it.

    Args:
      placement: shards rows over its devices.
      function: (held, rows) -> rows of arrays. `held` are arrays on devices,
        `rows` a tree of arrays (b, ...); every row of the result depends only
        on the same row of the arguments.
      name: name of the work, 'decoding'.
      at_once: rows per call; None: as many as fit into memory.
      say: function that logs a line where a batch is split.
    """
    self._placement = placement
    self._jitted = jax.jit(function)
    self._name = name
    self._at_once = at_once
    self._say = say
    self._programs: dict[Any, Any] = {}
    self._most: dict[Any, int] = {}

  def __call__(self, held: Any, rows: Any) -> Any:
    """Calls the function; returns numpy arrays (b, ...)."""
    count = len(jax.tree.leaves(rows)[0])
    size = self.fit(held, rows, count)
    parts = []
    with explained(f'{self._name} {size} at once'):
      for start in range(0, count, size):
        index = np.minimum(np.arange(start, start + size), count - 1)
        part = jax.tree.map(lambda x, i=index: np.asarray(x)[i], rows)
        parts.append(self._call(held, part, size))
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)

  def _call(self, held, rows, size):
    program = self._program(held, rows, size)
    with self._placement.scope():
      out = program(held, self._placement.put_rows(rows))
    # Rows are padded where the devices do not divide their number.
    return jax.tree.map(lambda x: x[:size], jax.device_get(out))

  def fit(self, held: Any, rows: Any, count: int) -> int:
    """The number of rows per call.

    Args:
      held: see `__init__`.
      rows: example rows, any number of them; gives shapes and dtypes.
      count: number of rows of the whole batch.
    """
    if self._at_once:
      return min(count, self._at_once)
    kind = _kind(rows)
    size = min(count, self._most.get(kind, count))
    least = self._placement.batch_parts
    while size > least and (kind, size) not in self._programs:
      room = free(self._placement)
      need = self._need(held, rows, size)
      if need is None or room is None or need <= room:
        break
      over = need / max(room, 1) if math.isfinite(need) else 2
      calls = 2 ** math.ceil(math.log2(over))
      fewer = max(least, -(-size // calls))
      self._say(
        f'{self._name} {fewer} at once: {size} need {_gb(need)} of memory, and '
        f'{_gb(room)} are available'
      )
      self._programs.pop((kind, size), None)
      self._most[kind] = size = fewer
    return size

  def _need(self, held, rows, size) -> float | None:
    """Bytes per device that a call needs besides `held`; None if unknown."""
    try:
      found = self._program(held, rows, size).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
      if not ran_out(error):
        raise
      return math.inf
    if found is None:
      return None
    return found.temp_size_in_bytes + found.output_size_in_bytes

  def _program(self, held, rows, size):
    """The program for `size` rows."""
    key = (_kind(rows), size)
    if key not in self._programs:
      parts = self._placement.batch_parts
      whole = -(-size // parts) * parts
      shape = lambda x: jax.ShapeDtypeStruct(
        (whole, *x.shape[1:]), x.dtype, sharding=self._placement.batch
      )
      with self._placement.scope():
        lowered = self._jitted.lower(held, jax.tree.map(shape, rows))
        self._programs[key] = lowered.compile()
    return self._programs[key]


def _kind(rows):
  leaves, tree = jax.tree.flatten(rows)
  return tree, tuple((x.shape[1:], str(x.dtype)) for x in leaves)


def free(placement: Placement) -> float | None:
  """Available bytes per device, None if unknown."""
  devices = placement.mesh.local_devices
  if devices[0].platform == 'cpu':
    found = host_memory()
    # All devices of a host share its memory.
    return found and found * _SHARE['cpu'] / len(devices)
  stats = [device.memory_stats() or {} for device in devices]
  if not all({'bytes_limit', 'bytes_in_use'} <= {*s} for s in stats):
    return None
  left = min(s['bytes_limit'] - s['bytes_in_use'] for s in stats)
  return left * _SHARE_OF_DEVICE


def host_memory(root: str = '/') -> int | None:
  """Free bytes of this machine or of the cgroup of this process.

  Args:
    root: folder with /proc and /sys.

  Returns:
    the smallest of these, or None if unknown.
  """
  found = []
  for line in _lines(pathlib.Path(root, 'proc/meminfo')):
    if line.startswith('MemAvailable:'):
      found.append(int(line.split()[1]) * 1024)
  for names in _CGROUPS:
    limit, used, stat = (
      _lines(pathlib.Path(root, 'sys/fs/cgroup', name)) for name in names
    )
    if limit and used and limit[0].isdigit():
      # The page cache is freed on demand.
      kept = [int(x.split()[1]) for x in stat if x.startswith('inactive_file ')]
      found.append(int(limit[0]) - int(used[0]) + sum(kept))
  return max(0, min(found)) if found else None


def _lines(path):
  try:
    return path.read_text(encoding='utf-8').splitlines()
  except OSError:
    return []


def ran_out(error: BaseException) -> bool:
  """Whether an error says that memory ran out."""
  return isinstance(error, MemoryError) or (
    isinstance(error, jax.errors.JaxRuntimeError)
    and 'RESOURCE_EXHAUSTED' in str(error)
  )


@contextlib.contextmanager
def explained(work: str, key: str = '--batch_size') -> Iterator[None]:
  """Turns out-of-memory errors into a ConfigError with advice.

  Args:
    work: name of the work inside, 'decoding 64 at once'.
    key: flag or config key that reduces memory when it is smaller.

  Raises:
    ConfigError: memory ran out.
  """
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not ran_out(error):
      raise
    raise ConfigError(
      f'memory ran out: {work}; a smaller {key} needs less'
    ) from error


def _gb(size: float) -> str:
  return f'{size / 1e9:.1f} GB' if math.isfinite(size) else 'too much'
