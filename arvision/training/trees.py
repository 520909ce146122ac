"""Trees of arrays as Orbax has them on disk."""

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

# Bytes of a checkpoint beside its arrays: names, shapes, parts of blocks.
_BESIDE = 4 * 2**20
# Bytes that an array is written in, and after which a file is.
_CHUNK = 16 * 2**20
_DATA_FILE = 64 * 2**20


def read_shapes(folder: pathlib.Path) -> Any:
  """The tree in a folder, with shapes and dtypes for leaves.

  Raises:
    Exception: it is damaged; what Orbax raises is not specified.
  """
  # The handler itself: `ocp.Checkpointer` would warn of a file that only a
  # checkpoint with one item has.
  tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree
  if not tree:
    raise ValueError(f'{folder} has no arrays')
  return jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), tree)


def read_numpy(folder: pathlib.Path, wanted: Any) -> Any:
  """Some of the arrays in a folder, as numpy arrays.

  Args:
    folder: absolute path.
    wanted: a part of what `read_shapes` gives.

  Raises:
    Exception: as `read_shapes`.
  """
  args = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
  )
  with _unheard():
    return ocp.PyTreeCheckpointHandler().restore(
      folder,
      args=ocp.args.PyTreeRestore(
        wanted, restore_args=args, partial_restore=True
      ),
    )


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
  """Keeps late answers off the screen.

  When one array cannot be read, Orbax ends its loop of events, and every other
  array that TensorStore reads would print a traceback about that. They come
  for some time after the error, so the hook stays then.
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
  """Writes a tree of arrays to a folder, whole or not at all.

  Besides the tree it takes a few hundred megabytes of memory. Ctrl-C is heard
  when it is written: Orbax would go on in other threads.

  Raises:
    DataError: the disk has no room for it.
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
    _held_back(signal.SIGINT),
    ocp.Checkpointer(digests.Arrays()) as writer,
  ):
    writer.save(path.absolute(), args=args)


class _Uncopied(np.ndarray):
  """An array that Orbax does not copy; `save_tree` waits for its end."""

  def __deepcopy__(self, memo):
    return self


def check_room(folder: pathlib.Path, tree: Any, what: str) -> None:
  """Refuses a disk that has no room for a tree of arrays.

  Args:
    folder: where it will be written; it need not exist.
    tree: what this process writes of it is counted, before compression.
    what: it is, and more that is to be said.

  Raises:
    DataError: with what is there and what is wanted.
  """
  there = folder.absolute()
  while not there.exists():
    there = there.parent
  need = _BESIDE + sum(_bytes(x) for x in jax.tree.leaves(tree))
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
def _held_back(number: int) -> Iterator[None]:
  """Does what a signal does after the block; a second one does it at once."""
  came: list[int] = []

  def note(number, frame):
    del frame
    came.append(number)
    signal.signal(number, before)

  try:
    before = signal.signal(number, note)
  except ValueError:  # not the main thread, which alone hears of signals
    yield
    return
  try:
    yield
  finally:
    signal.signal(number, before)
    if came:
      signal.raise_signal(number)


def load_tree(path: pathlib.Path) -> Any:
  """Reads what `save_tree` wrote, as numpy arrays.

  Raises:
    DataError: it is damaged.
  """
  try:
    digests.check(path)
    return read_numpy(path.absolute(), read_shapes(path.absolute()))
  except Exception as error:  # what Orbax raises here is not specified
    raise DataError(f"'{path}' is damaged: {first_line(error)}") from error


def check_shapes(got: Any, wanted: Any, where: str) -> None:
  """Refuses a tree of parameters that is not like another.

  Raises:
    ConfigError: with the first few paths that differ.
  """
  differ = [
    f'  {path}: {there} there, {here} here'
    for path, (there, here) in unlike(got, wanted).items()
  ]
  if differ:
    raise ConfigError(
      f'{where}: not the parameters of this config:\n'
      + differences.shortened(differ)
    )


def unlike(got: Any, wanted: Any) -> dict[str, tuple[Any, Any]]:
  """path -> (shape there, shape here) of arrays that differ, or 'absent'."""
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
  """What an error says, in a line."""
  return (str(error) or type(error).__name__).splitlines()[0][:200]


def name_of(path: Any) -> str:
  """'net/kernel' of a path of JAX."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def real_arrays(tree: Any) -> dict[str, Any]:
  """name -> array, of those that can be other than finite."""
  return {
    name_of(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  }
