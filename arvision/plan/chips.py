"""Published figures of TPU chips, which all predictions are based on."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """Published figures of one chip.

  Attributes:
    flops: peak bfloat16 FLOP/s.
    hbm: bytes of memory.
    hbm_bandwidth: bytes/s.
    interconnect: bytes/s to other chips over all links in one direction, half
      of a published bidirectional figure.
    axes: axes of a topology, 2 or 3.
    devices: JAX devices per chip.
    source: URL of the figures.
  """

  flops: float
  hbm: float
  hbm_bandwidth: float
  interconnect: float
  axes: int
  source: str
  devices: int = 1

  @property
  def device(self) -> 'Chip':
    """The figures of one JAX device."""
    share = {
      name: getattr(self, name) / self.devices
      for name in ('flops', 'hbm', 'hbm_bandwidth', 'interconnect')
    }
    return dataclasses.replace(self, devices=1, **share)


_GB, _GIB, _TERA = 1e9, 2.0**30, 1e12

# Read in November 2026. GBps are 1e9 bytes/s. Memory is taken as GiB: the
# compiler's own limit is slightly below that.
CHIPS = {
  'v5e': Chip(
    flops=197 * _TERA,
    hbm=16 * _GIB,
    hbm_bandwidth=819 * _GB,
    interconnect=200 * _GB,  # 1600 Gbps; 400 GBps both ways
    axes=2,
    source='https://cloud.google.com/tpu/docs/v5e',
  ),
  'v5p': Chip(
    flops=459 * _TERA,
    hbm=95 * _GIB,
    hbm_bandwidth=2765 * _GB,
    interconnect=600 * _GB,  # 4800 Gbps; 1200 GBps both ways
    axes=3,
    source='https://cloud.google.com/tpu/docs/v5p',
  ),
  'v6e': Chip(
    flops=918 * _TERA,
    hbm=32 * _GIB,
    hbm_bandwidth=1638 * _GB,
    interconnect=400 * _GB,  # 800 GBps both ways
    axes=2,
    source='https://cloud.google.com/tpu/docs/v6e',
  ),
  'tpu7x': Chip(
    flops=2307 * _TERA,
    hbm=192 * _GIB,
    hbm_bandwidth=7380 * _GB,
    interconnect=600 * _GB,  # 1200 GBps both ways
    axes=3,
    source='https://cloud.google.com/tpu/docs/tpu7x',
    devices=2,
  ),
}
