"""Published figures of TPU chips: the one table that predictions are made of."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """What a chip can do, as its maker says.

  Attributes:
    flops: peak FLOP/s of bfloat16 products.
    hbm: bytes of memory.
    hbm_bandwidth: bytes/s.
    interconnect: bytes/s to other chips, all links together, one way. Where
      the maker gives both ways together it is half of that.
    axes: of a topology: 2 or 3.
    devices: that JAX sees of a chip; figures are those of the whole chip.
    source: where the figures are from.
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
    """The share of one device, where JAX sees several of a chip."""
    share = {
      name: getattr(self, name) / self.devices
      for name in ('flops', 'hbm', 'hbm_bandwidth', 'interconnect')
    }
    return dataclasses.replace(self, devices=1, **share)


_GB, _GIB, _TERA = 1e9, 2.0**30, 1e12

# Sources were read in November 2026. GBps are 1e9 bytes/s; memory is in GiB:
# the compiler's own limit is a little less than so many.
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
