"""Multi-process runs: distributed init, collectives on the host, placement."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arvision.errors import ConfigError
from arvision.parallel.rules import BATCH_AXES, Rules, axes_text, nearest


def initialize() -> None:
  """Joins the other processes of a run if the environment names any.

  The environment is read in this order:

    explicit  JAX_COORDINATOR_ADDRESS with JAX_NUM_PROCESSES and JAX_PROCESS_ID;
              a cluster manager that JAX knows may supply the last two
    SLURM     a step of several tasks
    TPU       several TPU_WORKER_HOSTNAMES or MEGASCALE_NUM_SLICES, or a TPU VM,
              where JAX asks the metadata server; TPU_SKIP_MDS_QUERY=1 prevents
              this

  ARVISION_HOST_TIMEOUT is the number of seconds without a sign of life after
  which a process counts as dead, so that the others end; JAX's default is 100.

  Call it before anything asks for devices.

  Raises:
    ConfigError: contradictory variables.
  """
  if jax.distributed.is_initialized():
    return
  address = os.environ.get('JAX_COORDINATOR_ADDRESS')
  count, index = _number('JAX_NUM_PROCESSES', 1), _number('JAX_PROCESS_ID', 0)
  if not announced():
    return
  if count is not None and index is not None and index >= count:
    raise ConfigError(
      f'JAX_PROCESS_ID={index} of JAX_NUM_PROCESSES={count}: wanted 0 to '
      f'{count - 1}'
    )
  more: dict[str, Any] = {}
  if timeout := _number('ARVISION_HOST_TIMEOUT', 5):
    more['heartbeat_timeout_seconds'] = timeout
  try:
    jax.distributed.initialize(num_processes=count, process_id=index, **more)
  except ValueError as error:
    raise ConfigError(
      f'JAX_COORDINATOR_ADDRESS={address}, JAX_NUM_PROCESSES={count}, '
      f'JAX_PROCESS_ID={index}: {error} Set all three, or run under a cluster '
      'manager that JAX knows'
    ) from error


def announced() -> str:
  """What in the environment announces several processes, '' for nothing.

  Raises:
    ConfigError: contradictory variables.
  """
  tasks = _number('SLURM_STEP_NUM_TASKS', 1) or 1
  if address := os.environ.get('JAX_COORDINATOR_ADDRESS'):
    return f'JAX_COORDINATOR_ADDRESS={address}'
  if tasks > 1:
    return f'a SLURM step of {tasks} tasks'
  if _on_tpu_pod():
    return 'workers of a TPU slice'
  count, index = _number('JAX_NUM_PROCESSES', 1), _number('JAX_PROCESS_ID', 0)
  if count is None and index is None:
    return ''
  raise ConfigError(
    f'JAX_NUM_PROCESSES={count} and JAX_PROCESS_ID={index}, but no '
    'JAX_COORDINATOR_ADDRESS: set it to host:port of process 0, or unset all '
    'three to run alone'
  )


def _number(name: str, least: int) -> int | None:
  """An environment variable as a number, None if it is not set."""
  text = os.environ.get(name)
  if not text:
    return None
  try:
    number = int(text)
  except ValueError:
    number = least - 1
  if number < least:
    raise ConfigError(f"{name}='{text}': wanted a number, {least} or more")
  return number


def _on_tpu_pod() -> bool:
  """Whether this is a TPU worker of a slice with, possibly, several hosts."""
  get = os.environ.get
  if (_number('MEGASCALE_NUM_SLICES', 1) or 1) > 1:
    return True
  hosts = get('TPU_PROCESS_ADDRESSES') or get('TPU_WORKER_HOSTNAMES')
  if hosts:
    return len(hosts.split(',')) > 1
  # JAX sets TPU_ML_PLATFORM if it finds TPU chips.
  return bool(get('TPU_ML_PLATFORM') and not get('TPU_SKIP_MDS_QUERY'))


def cache_folder() -> pathlib.Path:
  """$XDG_CACHE_HOME/arvision, by default ~/.cache/arvision."""
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(home) / 'arvision'


def use_compilation_cache() -> None:
  """Keeps compiled programs in `cache_folder()`/jax.

  $JAX_COMPILATION_CACHE_DIR and the other variables of JAX take precedence.
  """
  if jax.config.jax_compilation_cache_dir is None:
    path = str(cache_folder() / 'jax')
    jax.config.update('jax_compilation_cache_dir', path)
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def all_agree(ok: bool) -> bool:
  """Whether `ok` is True in every process."""
  if jax.process_count() == 1:
    return ok
  return bool(np.all(multihost_utils.process_allgather(np.asarray(ok))))


def least(number: int) -> int:
  """The smallest number over all processes."""
  if jax.process_count() == 1:
    return number
  return int(np.min(multihost_utils.process_allgather(np.asarray(number))))


def barrier(name: str) -> None:
  """Waits for every process."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def say(text: str) -> None:
  """Prints a line in process 0."""
  if jax.process_index() == 0:
    print(text, flush=True)


def gather(tree: Any) -> Any:
  """Concatenates arrays of all processes along axis 0, in order of processes.

  Args:
    tree: arrays with the same shapes in every process.

  Returns:
    the tree with numpy arrays.
  """
  return multihost_utils.process_allgather(tree, tiled=True)


def as_first(tree: Any) -> Any:
  """Broadcasts the tree of process 0 to all processes."""
  return multihost_utils.broadcast_one_to_all(tree)


def divide(function: Callable, *arrays: np.ndarray) -> Any:
  """Computes function(*arrays) with the batch divided among processes.

  Args:
    function: maps (b, ...) arrays example by example. Every process calls it
      with the same number of examples, the last one repeated.
    arrays: (b, ...), the same in every process.

  Returns:
    the whole result, in every process.
  """
  size, count = len(arrays[0]), jax.process_count()
  share = -(-size // count)
  start = jax.process_index() * share
  own = np.minimum(np.arange(start, start + share), size - 1)
  found = gather(function(*(x[own] for x in arrays)))
  return jax.tree.map(lambda x: x[:size], found)


def own_pass(make: Callable[..., Iterator], batch_size: int) -> Iterator:
  """The examples of this process in a pass over data, see `gather`.

  Args:
    make: `Data.held_out` or `Data.train_pass`.
    batch_size: global; rounded up to a multiple of the processes.
  """
  count = jax.process_count()
  whole = -(-batch_size // count) * count
  return iter(make(whole, jax.process_index(), count))


class Placement:
  """A mesh with its rules: shards arrays and compiles programs.

  Attributes:
    mesh: the device mesh.
    rules: logical axis -> mesh axes.
    batch: sharding of batches, along the leading axis.
    whole: sharding of replicated arrays.
  """

  def __init__(self, mesh: Mesh, rules: Rules | None = None):
    self.mesh = mesh
    self.rules = rules or Rules()
    self.batch = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    self.whole = NamedSharding(mesh, PartitionSpec())

  @property
  def batch_parts(self) -> int:
    """Number of parts that a batch is split into."""
    return int(np.prod([self.mesh.shape[a] for a in BATCH_AXES]))

  def check_batch(self, batch_size: int, pieces: int = 1) -> None:
    """Checks that devices and accumulation steps divide a batch.

    Args:
      batch_size: global.
      pieces: accumulation steps (config.optim.accumulate).

    Raises:
      ConfigError: they do not; names the nearest sizes that do.
    """
    parts = self.batch_parts
    if batch_size % (parts * pieces) == 0:
      return
    whole = parts * pieces
    below = batch_size // whole * whole
    sizes = {a: n for a, n in self.mesh.shape.items() if a in BATCH_AXES}
    used = {a: n for a, n in sizes.items() if n > 1}
    other = ''
    if used and batch_size % pieces == 0:
      fits = nearest(used, batch_size // pieces)
      other = f'; the nearest mesh that divides it is {axes_text(fits)}'
    raise ConfigError(
      f'config.data.batch_size={batch_size} cannot be divided among '
      f'{parts} devices ({axes_text(used) or "config.mesh"}) and '
      f'config.optim.accumulate={pieces}; make it a multiple of {whole} '
      f'({f"{below} or " if below else ""}{below + whole}){other}'
    )

  def share(self) -> tuple[int, int]:
    """(index, count): which part of every batch this process loads.

    Processes whose devices hold the same examples (along `tensor` and
    `sequence`) load the same part. If the parts of a process are not adjacent,
    the order of examples in a batch differs from that of a single process.

    Raises:
      ConfigError: processes whose parts overlap but differ.
    """
    devices = self.mesh.devices.reshape(self.batch_parts, -1)
    owners = np.array([[d.process_index for d in row] for row in devices])
    parts = {
      int(p): tuple(np.flatnonzero((owners == p).any(1)))
      for p in np.unique(owners)
    }
    distinct = sorted(set(parts.values()))
    sizes = [len(rows) for rows in distinct]
    if sum(sizes) != self.batch_parts or len(set(sizes)) > 1:
      raise ConfigError(
        f'config.mesh: the {self.batch_parts} parts of a batch cannot be '
        f'distributed evenly over {len(parts)} processes; make the product of '
        f'{", ".join(BATCH_AXES)} a multiple or a divisor of the number of '
        'processes'
      )
    return distinct.index(parts[jax.process_index()]), len(distinct)

  def put_batch(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Global arrays from the part of a batch that this process loads."""
    arrays = numbers(batch)
    if jax.process_count() == 1:
      return jax.device_put(arrays, self.batch)
    make = jax.make_array_from_process_local_data
    return {k: make(self.batch, v) for k, v in arrays.items()}

  def put_rows(self, tree: Any) -> Any:
    """Shards arrays over the devices of this process alone.

    Args:
      tree: arrays (b, ...); the last row is repeated until the devices divide
        b.
    """

    def put(x):
      x = x if isinstance(x, jax.Array) else np.asarray(x)
      rows = -(-len(x) // self.batch_parts) * self.batch_parts
      if rows > len(x):
        x = np.asarray(x)[np.minimum(np.arange(rows), len(x) - 1)]
      return jax.device_put(x, self.batch)

    return jax.tree.map(put, tree)

  def put_whole(self, tree: Any) -> Any:
    """Replicates the arrays of process 0 on all devices."""
    if jax.process_count() > 1:
      tree = multihost_utils.broadcast_one_to_all(tree)
      make = jax.make_array_from_process_local_data
      return jax.tree.map(lambda x: make(self.whole, np.asarray(x)), tree)
    return jax.device_put(tree, self.whole)

  @contextlib.contextmanager
  def scope(self) -> Iterator[None]:
    """Context in which `constrain` uses this mesh and these rules."""
    with (
      jax.set_mesh(self.mesh),
      nn.logical_axis_rules(self.rules.table()),
    ):
      yield

  def jit(self, function: Callable, **options) -> Callable:
    """`jax.jit`, with the function traced inside `scope`."""
    compiled = jax.jit(function, **options)

    def call(*args):
      with self.scope():
        return compiled(*args)

    return call


def numbers(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The entries of a batch that a device can hold: all but text."""
  return {
    k: np.asarray(v)
    for k, v in batch.items()
    if np.asarray(v).dtype.kind not in 'OUS'
  }
