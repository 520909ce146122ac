"""Moves files from every process to another one, by collectives of JAX."""

import functools
import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Most bytes that a process moves at once. A device holds two such pieces.
_PIECE = 64 * 2**20


def table(row: np.ndarray) -> np.ndarray:
  """The rows of all processes.

  Args:
    row: array of any dtype; shape and dtype are the same in every process.

  Returns:
    (processes, ...) of the same dtype.
  """
  # JAX would make 32 bits of 64.
  found = multihost_utils.process_allgather(row.reshape(-1).view(np.uint8))
  return np.asarray(found).view(row.dtype).reshape(-1, *row.shape)


def send(source: pathlib.Path, target: pathlib.Path, shift: int) -> None:
  """Sends a file of process i to process i + shift; all processes call it.

  Args:
    source: file to send; a file that does not exist counts as empty.
    target: file to write what comes from process i - shift.
    shift: the same in every process.

  Raises:
    OSError: after all pieces are sent, if one of them could not be written.
  """
  size = source.stat().st_size if source.exists() else 0
  sizes = table(np.asarray(size, np.int64))
  count = len(sizes)
  most = int(sizes.max())
  due = int(sizes[(jax.process_index() - shift) % count])
  piece = min(_PIECE, 1 << max(0, most - 1).bit_length())
  problem: OSError | None = None
  try:
    target.touch()
  except OSError as error:  # the others wait for the pieces
    problem, target = error, pathlib.Path(os.devnull)
  with target.open('wb') as sink:
    for start in range(0, most, piece):
      data = np.zeros((1, piece), np.uint8)
      if start < size:
        read = np.fromfile(source, np.uint8, piece, offset=start)
        data[0, : len(read)] = read
      move, sharding = _mover(shift % count, piece)
      whole = jax.make_array_from_process_local_data(sharding, data)
      got = np.asarray(move(whole).addressable_shards[0].data)[0]
      if start < due and problem is None:
        try:
          sink.write(got[: due - start].data)
        except OSError as error:  # likewise
          problem = error
  if problem is not None:
    raise problem


@functools.cache
def _mover(shift: int, piece: int) -> tuple[Callable, NamedSharding]:
  """Moves (processes, piece) uint8 by `shift` rows; a row per process."""
  firsts: dict[int, jax.Device] = {}
  for device in jax.devices():
    firsts.setdefault(device.process_index, device)
  count = len(firsts)
  mesh = Mesh(np.array([firsts[i] for i in range(count)]), ('process',))
  rows = PartitionSpec('process')
  pairs = [(i, (i + shift) % count) for i in range(count)]

  def move(x):
    return jax.lax.ppermute(x, 'process', pairs)

  moved = jax.shard_map(move, mesh=mesh, in_specs=rows, out_specs=rows)
  return jax.jit(moved), NamedSharding(mesh, rows)
