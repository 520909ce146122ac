"""The devices that a program is traced for."""

import functools
import pathlib
import re

import jax


def devices() -> tuple[str, str]:
  """Platform ('cpu', 'gpu' or 'tpu') and device kind.

  The mesh in scope takes precedence: it may describe devices that are not here.
  """
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  if device is not None:
    return device.platform, device.device_kind
  return jax.default_backend(), jax.devices()[0].device_kind


def on_cpu() -> bool:
  return devices()[0] == 'cpu'


@functools.cache
def cpu_multiplies_bfloat16() -> bool:
  """Whether the CPU of this process has bfloat16 instructions.

  Read from /proc/cpuinfo (x86 and ARM); False on systems without it.
  """
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8')
  except OSError:
    return False
  units = r'^(flags|Features)\s*:.*\b(avx512_bf16|amx_bf16|bf16)\b'
  return re.search(units, text, re.MULTILINE) is not None
