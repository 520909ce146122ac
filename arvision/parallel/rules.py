"""Which mesh axis every logical axis is spread over."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arvision.build import suggest
from arvision.errors import ConfigError
from arvision.parallel.mesh import AXES
from arvision.ranges import Natural

# Mesh axes that one logical axis is spread over.
Axes = str | tuple[str, ...] | None
BATCH_AXES = ('slice', 'data', 'fsdp')


@dataclasses.dataclass(frozen=True)
class Rules:
  """Logical axis -> mesh axis, mesh axes, or None for not spread.

  The names in front are those of parameters, the names with `act_` those of
  activations.

  Attributes:
    small: a parameter with fewer elements than this is kept whole on every
      device where a mesh axis does not divide it; a larger one is refused.
  """

  embed: Axes = 'fsdp'
  heads: Axes = 'tensor'
  kv: Axes = None
  mlp: Axes = 'tensor'
  vocab: Axes = 'tensor'
  layers: Axes = None
  conv_in: Axes = None
  conv_out: Axes = 'fsdp'
  act_batch: Axes = BATCH_AXES
  act_length: Axes = 'sequence'
  act_embed: Axes = None
  act_heads: Axes = 'tensor'
  act_kv: Axes = None
  act_mlp: Axes = 'tensor'
  act_vocab: Axes = 'tensor'
  small: Natural = 2**16

  def __post_init__(self):
    for name, axes in self.table():
      for axis in _axes(axes):
        if axis not in AXES:
          raise ConfigError(
            f"config.rules.{name}='{axis}': no such mesh axis."
            + suggest(axis, AXES)
          )

  def table(self) -> tuple[tuple[str, Any], ...]:
    """The rules in the form that `nn.logical_axis_rules` takes."""
    names = [f.name for f in dataclasses.fields(self) if f.name != 'small']
    return tuple((name, getattr(self, name)) for name in names)

  def spec(self, names: tuple[str | None, ...], where: str) -> PartitionSpec:
    """The mesh axes of an array whose axes have logical names.

    Args:
      names: one per axis, None for an axis that is never spread.
      where: what the array is called, for errors.

    Raises:
      ConfigError: unknown name, or two axes on the same mesh axis.
    """
    table = dict(self.table())
    used: dict[str, str] = {}
    for name in names:
      if name is not None and name not in table:
        raise ConfigError(
          f"{where}: no rule for its axis '{name}'." + suggest(name, table)
        )
      for axis in _axes(table[name] if name else None):
        if axis in used:
          raise ConfigError(
            f"{where}: its axes '{used[axis]}' and '{name}' are both spread "
            f"over the mesh axis '{axis}'; set config.rules.{name}="
            f'{_other(axis)}, or change the names that its layer gives to its '
            'axes'
          )
        used[axis] = name or ''
    return PartitionSpec(*(table[name] if name else None for name in names))

  def sharding(
    self,
    mesh: Mesh,
    names: tuple[str | None, ...],
    shape: tuple[int, ...],
    where: str,
  ) -> NamedSharding:
    """Where an array of a shape lies.

    Raises:
      ConfigError: see `spec`; or a large array that the mesh does not divide.
    """
    spec = self.spec(names, where)
    for name, axes, size in zip(names, spec, shape):
      parts = int(np.prod([mesh.shape[a] for a in _axes(axes)]))
      if size % parts == 0:
        continue
      if np.prod(shape) < self.small:
        return NamedSharding(mesh, PartitionSpec())
      sizes = {a: mesh.shape[a] for a in _axes(axes)}
      raise ConfigError(
        f"{where} {tuple(shape)}: its axis '{name}' of {size} cannot be cut "
        f'into {parts} equal parts ({axes_text(sizes)}); the nearest mesh that '
        f'cuts it is {axes_text(nearest(sizes, size))}. Or change that size, or '
        f'config.rules.{name}'
      )
    return NamedSharding(mesh, spec)

  def shardings(self, mesh: Mesh, boxed: Any) -> Any:
    """Where every array of a tree lies.

    Args:
      mesh: of devices.
      boxed: tree of arrays or shapes, those of parameters in the boxes that
        `nn.with_logical_partitioning` makes. Arrays without a box are kept
        whole on every device.

    Returns:
      The tree without boxes, a `NamedSharding` for each array.

    Raises:
      ConfigError: see `sharding`.
    """

    def place(path, leaf):
      if not isinstance(leaf, nn.meta.AxisMetadata):
        return NamedSharding(mesh, PartitionSpec())
      where = jax.tree_util.keystr(path, simple=True, separator='/')
      if not jax.tree.leaves(leaf.value):
        # What an optimizer that sees some parameters only has for the others.
        return leaf.value
      if len(leaf.names) != len(leaf.value.shape):
        # Of an optimizer that keeps less than an array of a parameter's shape.
        return NamedSharding(mesh, PartitionSpec())
      return self.sharding(mesh, leaf.names, leaf.value.shape, where)

    return jax.tree_util.tree_map_with_path(
      place, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata)
    )


def _other(axis):
  return "'tensor' or None" if axis != 'tensor' else "'fsdp' or None"


def _axes(axes) -> tuple[str, ...]:
  if axes is None:
    return ()
  return (axes,) if isinstance(axes, str) else tuple(axes)


def nearest(sizes: Mapping[str, int], size: int) -> dict[str, int]:
  """Sizes of mesh axes whose product divides a number, near to given ones.

  Axes are taken from the last on; each is given its largest possible size up
  to the one it has.

  Args:
    sizes: axis -> size of the mesh.
    size: what shall be divided.
  """
  found, left = dict(sizes), size
  for axis in reversed(list(sizes)):
    found[axis] = max(n for n in range(1, sizes[axis] + 1) if left % n == 0)
    left //= found[axis]
  return {axis: found[axis] for axis in sizes}


def axes_text(sizes: Mapping[str, int]) -> str:
  """'config.mesh.data=2, config.mesh.fsdp=4'."""
  return ', '.join(f'config.mesh.{a}={n}' for a, n in sizes.items())
