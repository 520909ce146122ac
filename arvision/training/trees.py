"""Trees of arrays on disk, in the format of Orbax."""

import contextlib
import pathlib
import shutil
import signal
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from arvision.errors import ConfigError, DataError
from arvision.training import differences, digests

# Bytes of a checkpoint besides its arrays: names, shapes, partial blocks.
_OVERHEAD = 4 * 2**20
# Bytes of a chunk of an array, and of a data file.
_CHUNK = 16 * 2**20
_DATA_FILE = 64 * 2**20


def read_shapes(folder: pathlib.Path) -> Any:
  """The tree in a folder, with shapes and dtypes as leaves.

  Raises:
    Exception: it is damaged; Orbax documents no exceptions.
  """
  # Not `ocp.Checkpointer`, which warns of a missing file that only checkpoints
  # with one item have.
  tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree
  if not tree:
    raise ValueError(f'{folder} has no arrays')
  return jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), tree)


def read_numpy(folder: pathlib.Path, wanted: Any) -> Any:
  """Some of the arrays in a folder, as numpy arrays.

  Args:
    folder: absolute path.
    wanted: a subtree of the result of `read_shapes`.

  Raises:
    Exception: see `read_shapes`.
  """
  args = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
  )
  with _quiet():
    return ocp.PyTreeCheckpointHandler().restore(
      folder,
      args=ocp.args.PyTreeRestore(
        wanted, restore_args=args, partial_restore=True
      ),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences tracebacks of reads that end after an error.

  When one array cannot be read, Orbax closes its event loop, and every pending
  read of TensorStore prints a traceback. They come for some time after the
  error, so the hook stays in place after an error.
  """
  before = sys.unraisablehook

  def hook(late):
    if not isinstance(late.exc_value, RuntimeError) or (
      str(late.exc_value) != 'Event loop is closed'
    ):
      before(late)

  sys.unraisablehook = hook
  yield
  sys.unraisablehook = before


def save_tree(path: pathlib.Path, tree: Any) -> None:
  """Writes a tree of arrays to a folder, atomically.

  Takes a few hundred megabytes of memory besides the tree. SIGINT is delayed
  until the end: the threads of Orbax would not stop.

  Raises:
    DataError: the disk is too full for it.
  """
  check_room(path, tree, 'the weights')
  tree = jax.tree.map(
    lambda x: x.view(_Uncopied) if isinstance(x, np.ndarray) else x, tree
  )
  pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), tree)
  args = digests.SaveArrays(
    tree, save_args=pieces, ocdbt_target_data_file_size=_DATA_FILE
  )
  with (
    _delayed(signal.SIGINT),
    ocp.Checkpointer(digests.Arrays()) as writer,
  ):
    writer.save(path.absolute(), args=args)


class _Uncopied(np.ndarray):
  """An array that Orbax need not copy: `save_tree` waits for the write."""

  def __deepcopy__(self, memo):
    return self


def check_room(folder: pathlib.Path, tree: Any, what: str) -> None:
  """Checks that a disk has room for a tree of arrays.

  Args:
    folder: folder that will be written; it need not exist.
    tree: tree of arrays; the shards of this process count, uncompressed.
    what: name of the tree, and further advice.

  Raises:
    DataError: it has not; with free and required bytes.
  """
  there = folder.absolute()
  while not there.exists():
    there = there.parent
  need = _OVERHEAD + sum(_bytes(x) for x in jax.tree.leaves(tree))
  left = shutil.disk_usage(there).free
  if left < need:
    raise DataError(
      f"'{folder}': {left / 1e6:,.1f} MB are free, {need / 1e6:,.1f} MB wanted; "
      f'free space for {what}'
    )


def _bytes(x):
  if not isinstance(x, jax.Array):
    return np.asarray(x).nbytes
  shards = x.addressable_shards
  return sum(s.data.nbytes for s in shards if s.replica_id == 0)


@contextlib.contextmanager
def _delayed(number: int) -> Iterator[None]:
  """Delays a signal until the block ends; a second one has its usual effect."""
  came: list[int] = []

  def note(number, frame):
    del frame
    came.append(number)
    signal.signal(number, before)

  try:
    before = signal.signal(number, note)
  except ValueError:  # not the main thread, which alone gets signals
    yield
    return
  try:
    yield
  finally:
    signal.signal(number, before)
    if came:
      signal.raise_signal(number)


def load_tree(path: pathlib.Path) -> Any:
  """Reads a tree that `save_tree` wrote, as numpy arrays.

  Raises:
    DataError: it is damaged.
  """
  try:
    digests.check(path)
    return read_numpy(path.absolute(), read_shapes(path.absolute()))
  except Exception as error:  # Orbax documents no exceptions
    raise DataError(f"'{path}' is damaged: {first_line(error)}") from error


def check_shapes(got: Any, wanted: Any, where: str) -> None:
  """Checks that two trees have arrays of the same paths and shapes.

  Raises:
    ConfigError: they have not; with the first few paths that differ.
  """
  differ = [
    f'  {path}: {there} there, {here} here'
    for path, (there, here) in mismatches(got, wanted).items()
  ]
  if differ:
    raise ConfigError(
      f'{where}: not the parameters of this config:\n'
      + differences.shortened(differ)
    )


def mismatches(got: Any, wanted: Any) -> dict[str, tuple[Any, Any]]:
  """path -> (shape in got or 'absent', shape in wanted or 'absent')."""
  a, b = (
    {k: tuple(x.shape) for k, x in by_path(t).items()} for t in (got, wanted)
  )
  return {
    path: (a.get(path, 'absent'), b.get(path, 'absent'))
    for path in sorted({*a, *b})
    if a.get(path) != b.get(path)
  }


def by_path(tree: Any) -> dict[str, Any]:
  """'block/name' -> array of a tree, in the order of its leaves."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {name_of(path): leaf for path, leaf in leaves}


def first_line(error: Exception) -> str:
  """The first line of an error message, or the name of its type."""
  return (str(error) or type(error).__name__).splitlines()[0][:200]


def name_of(path: Any) -> str:
  """A path of JAX as text, 'net/kernel'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def real_arrays(tree: Any) -> dict[str, Any]:
  """name -> array, of the arrays of a tree with a floating-point dtype."""
  return {
    name_of(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  }
