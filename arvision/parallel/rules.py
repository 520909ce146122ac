"""Sharding rules: logical axis -> mesh axes."""

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

# Mesh axes that one logical axis is sharded over.
Axes = str | tuple[str, ...] | None
BATCH_AXES = ('slice', 'data', 'fsdp')


@dataclasses.dataclass(frozen=True)
class Rules:
  """Logical axis -> mesh axis, several mesh axes, or None for replicated.

  Names with `act_` are axes of activations, the others axes of parameters.

  Attributes:
    embed, act_embed: width of the transformer.
    heads, act_heads: heads of attention.
    kv, act_kv: width of a head.
    mlp, act_mlp: inner width of an MLP.
    vocab, act_vocab: ids of a vocabulary.
    layers: layers of a stack.
    conv_in, conv_out: channels before and behind a convolution.
    act_batch: examples.
    act_length: slots.
    small: if the mesh does not divide a parameter, one with fewer elements than
      this is replicated; a larger one is an error.
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

  def table(self) -> tuple[tuple[str, Axes], ...]:
    """The rules for `nn.logical_axis_rules`."""
    names = [f.name for f in dataclasses.fields(self) if f.name != 'small']
    return tuple((name, getattr(self, name)) for name in names)

  def spec(self, names: tuple[str | None, ...], where: str) -> PartitionSpec:
    """The mesh axes of an array.

    Args:
      names: logical name of every axis, None to replicate it.
      where: name of the array, for errors.

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
            f"{where}: its axes '{used[axis]}' and '{name}' are both sharded "
            f"over the mesh axis '{axis}'; set config.rules.{name}="
            f'{_other(axis)}, or change the axis names in its layer'
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
    """The sharding of an array of a shape.

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
        f"{where} {tuple(shape)}: its axis '{name}' of {size} cannot be split "
        f'into {parts} equal parts ({axes_text(sizes)}); the nearest mesh that '
        f'divides it is {axes_text(nearest(sizes, size))}. Or change that size, '
        f'or config.rules.{name}'
      )
    return NamedSharding(mesh, spec)

  def shardings(self, mesh: Mesh, boxed: Any) -> Any:
    """The sharding of every array of a tree.

    Args:
      mesh: the device mesh.
      boxed: tree of arrays or shapes, parameters in the boxes of
        `nn.with_logical_partitioning`. Arrays without a box are replicated.

    Returns:
      the tree without boxes, with a `NamedSharding` for every array.

    Raises:
      ConfigError: see `sharding`.
    """

    def place(path, leaf):
      if not isinstance(leaf, nn.meta.AxisMetadata):
        return NamedSharding(mesh, PartitionSpec())
      where = jax.tree_util.keystr(path, simple=True, separator='/')
      if not jax.tree.leaves(leaf.value):
        # A masked optimizer has empty leaves for parameters that it skips.
        return leaf.value
      if len(leaf.names) != len(leaf.value.shape):
        # A factored moment has another shape than its parameter.
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
  """The nearest smaller sizes of mesh axes whose product divides `size`.

  Greedy: from the last axis on, each takes its largest possible size.

  Args:
    sizes: axis -> size of the mesh.
    size: the number to divide.
  """
  found, left = dict(sizes), size
  for axis in reversed(list(sizes)):
    found[axis] = max(n for n in range(1, sizes[axis] + 1) if left % n == 0)
    left //= found[axis]
  return {axis: found[axis] for axis in sizes}


def axes_text(sizes: Mapping[str, int]) -> str:
  """'config.mesh.data=2, config.mesh.fsdp=4'."""
  return ', '.join(f'config.mesh.{a}={n}' for a, n in sizes.items())
