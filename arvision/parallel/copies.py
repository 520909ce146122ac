"""Checksums of arrays on every device, and the device whose bits differ."""

import collections
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from arvision.parallel.mesh import AXES

_WORDS = {1: jnp.uint8, 2: jnp.uint16}


class Odd(NamedTuple):
  """A checksum that differs from others.

  Attributes:
    array: number of the array.
    devices: positions in the mesh of the devices that may be at fault; one if
      most copies agree against it.
    copies: number of copies that were compared.
  """

  array: int
  devices: tuple[int, ...]
  copies: int


def checksum(x: jax.Array) -> jax.Array:
  """() uint32 of the bits of an array.

  Every word is multiplied by an odd number of its position, so a change of one
  element always changes the sum.
  """
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  if x.dtype == jnp.bool_:
    x = x.astype(jnp.uint8)
  words = jax.lax.bitcast_convert_type(
    x, _WORDS.get(x.dtype.itemsize, jnp.uint32)
  ).astype(jnp.uint32)
  factor, stride = jnp.ones(words.shape, jnp.uint32), 2
  for axis in reversed(range(words.ndim)):
    place = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    factor += np.uint32(stride % 2**32) * place
    stride *= words.shape[axis]
  return jnp.sum(words * factor, dtype=jnp.uint32)


def checksums(leaves: Sequence[jax.Array]) -> jax.Array:
  """(l,) uint32 checksums."""
  return jnp.stack([checksum(x) for x in leaves])


def on_every_device(
  function: Callable[..., jax.Array], mesh: Mesh, in_specs: tuple
) -> Callable[..., jax.Array]:
  """A function that every device computes by itself, on what it holds.

  Args:
    function: arrays as one device holds them -> (l,).
    mesh: the device mesh.
    in_specs: a `PartitionSpec` of every argument.

  Returns:
    arrays -> (devices, l), in the order of `mesh.devices.flat`.
  """
  return jax.shard_map(
    lambda *args: function(*args)[None],
    mesh=mesh,
    in_specs=in_specs,
    out_specs=PartitionSpec(AXES),
    # What is computed differs between devices only by faults.
    check_vma=False,
  )


def holders(leaves: Sequence[jax.Array], mesh: Mesh) -> np.ndarray:
  """(devices, l): the first device that holds the same part of an array."""
  known: dict[tuple, list[int]] = {}
  devices = list(mesh.devices.flat)
  columns = []
  for leaf in leaves:
    kind = leaf.sharding, leaf.shape
    if kind not in known:
      parts = leaf.sharding.devices_indices_map(leaf.shape)
      first: dict[str, int] = {}
      known[kind] = [
        first.setdefault(str(parts[device]), i)
        for i, device in enumerate(devices)
      ]
    columns.append(known[kind])
  return np.array(columns).T


def odd_copies(sums: np.ndarray, first: np.ndarray) -> list[Odd]:
  """Copies of a part of an array that differ from others, by majority.

  Args:
    sums: (devices, l) checksums.
    first: (devices, l) result of `holders`.
  """
  differ = sums != np.take_along_axis(sums, first, 0)
  found = []
  for array in np.flatnonzero(differ.any(0)):
    for part in np.unique(first[differ[:, array], array]):
      devices = np.flatnonzero(first[:, array] == part)
      odd = minority([sums[d, array] for d in devices])
      named = tuple(int(devices[i]) for i in odd)
      found.append(Odd(int(array), named, len(devices)))
  return found


def minority(values: Sequence) -> list[int]:
  """The places of values that most others contradict; all without a majority."""
  counts = collections.Counter(values)
  value, count = counts.most_common(1)[0]
  if 2 * count <= len(values):
    return list(range(len(values)))
  return [i for i, other in enumerate(values) if other != value]
