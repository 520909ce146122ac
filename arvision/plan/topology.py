"""TPU topologies to compile for, without having the chips."""

import dataclasses
import importlib.util
import os
import re
from collections.abc import MutableMapping
from typing import Any

import numpy as np

from arvision.build import suggest
from arvision.errors import ConfigError
from arvision.plan.chips import CHIPS, Chip

# Keeps the compiler from asking for a TPU machine, and from warning.
_ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """A slice of TPU chips.

  Attributes:
    kind: kind of chip, a key of `chips.CHIPS`.
    shape: number of chips along every axis of the interconnect.
  """

  kind: str
  shape: tuple[int, ...]

  def __str__(self) -> str:
    return f'{self.kind}:{"x".join(map(str, self.shape))}'

  @property
  def chip(self) -> Chip:
    """The figures of one device."""
    return CHIPS[self.kind].device

  @property
  def devices(self) -> int:
    """Number of JAX devices."""
    return int(np.prod(self.shape)) * CHIPS[self.kind].devices


def parse(text: str) -> Topology:
  """'v5p:4x4x4' -> a `Topology`.

  Raises:
    ConfigError: unknown chip, or a malformed shape.
  """
  kind, _, sides = text.partition(':')
  if kind not in CHIPS:
    raise ConfigError(
      f"--topology='{text}': unknown chip '{kind}'." + suggest(kind, CHIPS)
    )
  axes = CHIPS[kind].axes
  example = f'{kind}:{"x".join("4" * axes)}'
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', sides):
    raise ConfigError(
      f"--topology='{text}': wanted the chips along every axis, like {example}"
    )
  shape = tuple(map(int, sides.split('x')))
  if len(shape) != axes:
    raise ConfigError(
      f"--topology='{text}': {kind} slices have {axes} axes, got {len(shape)}; "
      f'wanted something like {example}'
    )
  return Topology(kind, shape)


def prepare(
  topology: Topology, environment: MutableMapping[str, str] = os.environ
) -> None:
  """Sets the environment of the compiler; call it before JAX starts.

  Raises:
    ConfigError: the TPU compiler is not installed.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise ConfigError(
      'plan compiles with the TPU compiler, which is not installed: '
      "pip install 'arvision[plan]' (the package libtpu; no TPU is needed)"
    )
  environment.update(_ENVIRONMENT)
  environment['TPU_ACCELERATOR_TYPE'] = f'{topology.kind}-{topology.devices}'
  # JAX reads the environment on import, which may have happened already.
  import jax

  jax.config.update('jax_platforms', 'cpu')


def describe(topology: Topology) -> list[Any]:
  """The devices of a topology, for `parallel.mesh.make_mesh`.

  Raises:
    ConfigError: the compiler does not know this topology.
  """
  from jax.experimental import topologies

  try:
    found = topologies.get_topology_desc(
      topology_name=str(topology), platform='tpu'
    )
  except Exception as error:  # types of the plugin
    raise ConfigError(
      f"--topology='{topology}': the TPU compiler knows no such slice: {error}"
    ) from error
  return list(found.devices)
