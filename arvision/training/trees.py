"""Trees of arrays as Orbax has them on disk."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp


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
  return ocp.PyTreeCheckpointHandler().restore(
    folder,
    args=ocp.args.PyTreeRestore(
      wanted, restore_args=args, partial_restore=True
    ),
  )


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
