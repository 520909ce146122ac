"""The software and the devices of a run, for its folder."""

import importlib.metadata
import os
import platform
from typing import Any

import jax

ENVIRONMENT = 'environment.json'
_PACKAGES = ('arvision', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


def environment(mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """What the speed and the rounding of a run depend on, as JSON values."""
  device = mesh.devices.flat[0]
  return {
    'devices': f'{mesh.size} x {device.device_kind}',
    'platform': device.platform,
    'processes': jax.process_count(),
    'mesh': dict(mesh.shape),
    'cores': os.cpu_count(),
    'system': platform.platform(),
    'versions': {
      'python': platform.python_version(),
      **{name: version(name) for name in _PACKAGES},
    },
  }


def version(package: str) -> str:
  """The version of a package, 'none' if it is not installed."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return 'none'
