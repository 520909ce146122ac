"""What a program is traced for."""

import jax


def devices() -> tuple[str, str]:
  """Platform ('cpu', 'gpu' or 'tpu') and kind of the devices.

  Those of the mesh in scope may be a description of devices that are not here.
  """
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  if device is not None:
    return device.platform, device.device_kind
  return jax.default_backend(), jax.devices()[0].device_kind


def on_cpu() -> bool:
  return devices()[0] == 'cpu'
