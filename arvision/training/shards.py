"""The parts of a train state that processes hold, by name."""

from collections.abc import Mapping

import jax
import numpy as np

from arvision.tasks.base import TrainState
from arvision.training.trees import by_path


class Shards:
  """The distinct shards of a state in all processes, by name.

  Attributes:
    names: names of all shards, in the same order in every process.
    bytes: name -> size.
  """

  def __init__(self, abstract: TrainState):
    """Takes shapes, dtypes and shardings of the state."""
    self.bytes: dict[str, int] = {}
    self._processes: dict[str, set[int]] = {}
    for path, leaf in by_path(abstract).items():
      size = int(np.prod(leaf.sharding.shard_shape(leaf.shape)))
      places = leaf.sharding.devices_indices_map(leaf.shape)
      for device, index in places.items():
        name = _name(path, leaf, index)
        self.bytes[name] = size * leaf.dtype.itemsize
        self._processes.setdefault(name, set()).add(device.process_index)
    self.names = [*self.bytes]

  def of(self, process: int) -> set[str]:
    """Names of the shards that a process holds."""
    return {k for k, who in self._processes.items() if process in who}

  def local(self, state: TrainState) -> dict[str, np.ndarray]:
    """name -> array, of the shards of this process."""
    found = {}
    for path, leaf in by_path(state).items():
      for shard in leaf.addressable_shards:
        name = _name(path, leaf, shard.index)
        if name not in found:
          found[name] = np.ascontiguousarray(shard.data)
    return found

  def state(
    self, abstract: TrainState, blocks: Mapping[str, np.ndarray]
  ) -> TrainState:
    """A state from its shards.

    Args:
      abstract: as in `__init__`.
      blocks: name -> bytes, of the shards of this process.
    """

    def make(path, leaf):
      def block(index):
        data = blocks[_name(path, leaf, index)]
        shape = leaf.sharding.shard_shape(leaf.shape)
        return data.copy().view(leaf.dtype).reshape(shape)

      return jax.make_array_from_callback(leaf.shape, leaf.sharding, block)

    leaves = [make(path, leaf) for path, leaf in by_path(abstract).items()]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _name(path, leaf, index):
  """Such as 'params/net/kernel float32 (8, 4) 0:4,0:4'."""
  ends = [s.indices(n)[:2] for s, n in zip(index, leaf.shape)]
  text = ','.join(f'{a}:{b}' for a, b in ends)
  return f'{path} {leaf.dtype} {tuple(leaf.shape)} {text}'
