"""The device mesh of a run."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from arvision.build import check, suggest
from arvision.errors import ConfigError

AXES = ('slice', 'data', 'fsdp', 'tensor', 'sequence')


def mesh_shape(sizes: Mapping[str, int], devices: int) -> tuple[int, ...]:
  """The size of every axis of `AXES`.

  Args:
    sizes: axis -> size, 1 if absent. One axis may be -1: the remaining devices.
    devices: number of devices.

  Raises:
    ConfigError: unknown axis, several -1, or a product that is not the number
      of devices.
  """
  for name in sizes:
    if name not in AXES:
      raise ConfigError(
        f'config.mesh.{name}: no such axis.' + suggest(name, AXES)
      )
    check(sizes[name], int, f'config.mesh.{name}')
  shape = [int(sizes.get(name, 1)) for name in AXES]
  text = ', '.join(f'{n}={s}' for n, s in zip(AXES, shape) if s != 1)
  bad = [n for n, s in zip(AXES, shape) if s < 1 and s != -1]
  if bad:
    raise ConfigError(f'config.mesh.{bad[0]}: wanted 1 or more, or -1')
  if shape.count(-1) > 1:
    raise ConfigError(f'config.mesh ({text}): only one axis may be -1')
  known = math.prod(s for s in shape if s != -1)
  if -1 in shape and devices % known == 0:
    shape[shape.index(-1)] = devices // known
  if math.prod(shape) != devices:
    largest = AXES[max(range(len(AXES)), key=lambda i: shape[i])]
    raise ConfigError(
      f'config.mesh ({text}) asks for a multiple of {known} devices, there '
      f'are {devices}; set one axis to -1 and the others to divisors of '
      f'{devices}'
      if -1 in shape
      else f'config.mesh ({text or "all 1"}) has {known} devices, there are '
      f'{devices}; set one axis to -1 to give it the remaining devices '
      f'(--config.mesh.{largest}=-1)'
    )
  return tuple(shape)


def make_mesh(
  sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A mesh with all of `AXES`, all of them `AxisType.Auto`.

  Neighbours along the last axes are neighbours on the hardware. The axis
  `slice` runs over TPU slices, which communicate over the data-center network.

  Args:
    sizes: see `mesh_shape`.
    devices: None: all devices of all processes.

  Raises:
    ConfigError: see `mesh_shape`.
  """
  devices = jax.devices() if devices is None else devices
  shape = mesh_shape(sizes, len(devices))
  types = (AxisType.Auto,) * len(AXES)
  slices = {getattr(d, 'slice_index', 0) for d in devices}
  if len(slices) == 1:
    # An axis may be part of a side of the torus: 8 of 4 x 4 x 4.
    grid = mesh_utils.create_device_mesh(
      shape, devices, allow_split_physical_axes=True
    )
    return Mesh(grid, AXES, axis_types=types)
  if shape[0] != len(slices):
    raise ConfigError(
      f'config.mesh.slice={shape[0]}, but the devices are in {len(slices)} '
      f'slices; set config.mesh.slice={len(slices)}'
    )
  inside, between = (1, *shape[1:]), (shape[0],) + (1,) * (len(AXES) - 1)
  grid = mesh_utils.create_hybrid_device_mesh(inside, between, devices)
  return Mesh(grid, AXES, axis_types=types)
