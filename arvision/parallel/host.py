"""One process among several: who it is, and how its arrays become global."""

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

from arvision.build import ConfigError
from arvision.parallel.rules import BATCH_AXES, Rules, axes_text, nearest


def initialize() -> None:
  """Joins the other processes of a run, where the environment tells of any.

  That is: JAX_COORDINATOR_ADDRESS is set (with JAX_NUM_PROCESSES and
  JAX_PROCESS_ID, unless a cluster manager says them), a SLURM step has several
  tasks, a TPU has several workers or slices, or this is a TPU VM, where JAX asks
  the metadata server. To be called before anything asks for devices.
  """
  get = os.environ.get
  hosts = get('TPU_WORKER_HOSTNAMES')
  # With chips JAX chooses the platform 'tpu'; without, it sets the variable.
  on_tpu = 'tpu' in (jax.config.jax_platforms or '')
  vm = on_tpu and hosts is None and 'TPU_SKIP_MDS_QUERY' not in os.environ
  several = len((hosts or '').split(',')) > 1
  tpu = vm or several or int(get('MEGASCALE_NUM_SLICES') or 1) > 1
  slurm = int(get('SLURM_STEP_NUM_TASKS') or 1) > 1
  if 'JAX_COORDINATOR_ADDRESS' in os.environ:
    count, index = get('JAX_NUM_PROCESSES'), get('JAX_PROCESS_ID')
    jax.distributed.initialize(
      num_processes=int(count) if count else None,
      process_id=int(index) if index else None,
    )
  elif tpu or slurm:
    jax.distributed.initialize()


def cache_folder() -> pathlib.Path:
  """$XDG_CACHE_HOME/arvision, by default ~/.cache/arvision."""
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(home) / 'arvision'


def use_compilation_cache() -> None:
  """Keeps compiled programs in `cache_folder()`/jax.

  $JAX_COMPILATION_CACHE_DIR and the other variables of JAX go first.
  """
  if jax.config.jax_compilation_cache_dir is None:
    path = str(cache_folder() / 'jax')
    jax.config.update('jax_compilation_cache_dir', path)
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def all_agree(ok: bool) -> bool:
  """Whether it is so in every process."""
  if jax.process_count() == 1:
    return ok
  return bool(np.all(multihost_utils.process_allgather(np.asarray(ok))))


def barrier(name: str) -> None:
  """Waits for every process."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


class Placement:
  """A mesh with its rules: puts arrays on devices and compiles for them.

  Attributes:
    mesh: of all devices.
    rules: logical axis -> mesh axes.
    batch: the sharding of batches, along the leading axis.
    whole: the sharding of arrays that every device has a copy of.
  """

  def __init__(self, mesh: Mesh, rules: Rules | None = None):
    self.mesh = mesh
    self.rules = rules or Rules()
    self.batch = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    self.whole = NamedSharding(mesh, PartitionSpec())

  @property
  def batch_parts(self) -> int:
    """The batch is cut into this many parts."""
    return int(np.prod([self.mesh.shape[a] for a in BATCH_AXES]))

  def check_batch(self, batch_size: int, pieces: int = 1) -> None:
    """Refuses a batch that devices and pieces do not divide.

    Args:
      batch_size: global.
      pieces: that every step is cut into (config.optim.accumulate).

    Raises:
      ConfigError: with the keys to change; or a mesh that lays a row of the
        batch over several processes, each of which reads rows of its own.
    """
    parts = self.batch_parts
    if batch_size % (parts * pieces) == 0:
      self._check_rows(batch_size)
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

  def _check_rows(self, batch_size):
    """Refuses a mesh on which processes share rows of the batch."""
    if jax.process_count() == 1:
      return
    here = self.batch.addressable_devices_indices_map((batch_size,))
    rows = {i for (part,) in here.values() for i in range(batch_size)[part]}
    if len(rows) * jax.process_count() != batch_size:
      cut = {a: n for a, n in self.mesh.shape.items() if n > 1}
      raise ConfigError(
        f'{axes_text(cut)}: several of the {jax.process_count()} processes '
        'would need the same rows of the batch, and each reads rows of its '
        'own; make tensor x sequence a divisor of '
        f'{jax.local_device_count()}, the devices of a process'
      )

  def put_batch(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Global arrays of the rows that this process has; text is left out."""
    arrays = numbers(batch)
    if jax.process_count() == 1:
      return jax.device_put(arrays, self.batch)
    make = jax.make_array_from_process_local_data
    return {k: make(self.batch, v) for k, v in arrays.items()}

  def put_whole(self, tree: Any) -> Any:
    """Arrays that every device has a copy of, as process 0 has them."""
    if jax.process_count() > 1:
      tree = multihost_utils.broadcast_one_to_all(tree)
      make = jax.make_array_from_process_local_data
      return jax.tree.map(lambda x: make(self.whole, np.asarray(x)), tree)
    return jax.device_put(tree, self.whole)

  @contextlib.contextmanager
  def scope(self) -> Iterator[None]:
    """Inside, logical names of activations mean axes of the mesh."""
    with (
      jax.set_mesh(self.mesh),
      nn.logical_axis_rules(self.rules.table()),
    ):
      yield

  def jit(self, function: Callable, **options) -> Callable:
    """`jax.jit` of a function that is traced inside `scope`."""
    compiled = jax.jit(function, **options)

    def call(*args):
      with self.scope():
        return compiled(*args)

    return call


def numbers(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """A batch without what a device cannot hold (captions)."""
  return {
    k: np.asarray(v)
    for k, v in batch.items()
    if np.asarray(v).dtype.kind not in 'OUS'
  }
