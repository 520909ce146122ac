"""Predicts the time of a step from published figures of the chip.

    step = max(FLOPs / (0.75 peak), bytes / HBM bandwidth)
           + 0.5 collective bytes / interconnect

for one device. It assumes that large matrix products reach three quarters of the
peak, that memory traffic overlaps with compute, and that half of the
communication does. None of these was measured on a TPU.
"""

import dataclasses

from arvision.plan.chips import Chip

EFFICIENCY = 0.75
EXPOSED = 0.5


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The predicted time of a step.

  Attributes:
    compute, memory, collectives: seconds of the three terms.
    images_per_second: of all devices together.
    mfu: model FLOPs utilization, in [0, 1]; rematerialized FLOPs do not count.
  """

  compute: float
  memory: float
  collectives: float
  images_per_second: float
  mfu: float

  @property
  def step(self) -> float:
    """Seconds of a step."""
    return max(self.compute, self.memory) + self.collectives

  @property
  def bound(self) -> str:
    """The largest term."""
    terms = ('compute', 'memory', 'collectives')
    return max(terms, key=lambda term: getattr(self, term))


def predict(
  chip: Chip,
  *,
  devices: int,
  images: int,
  flops: float,
  useful: float,
  traffic: float,
  moved: float,
) -> Prediction:
  """Predicts the time of a step.

  Args:
    chip: figures of one device.
    devices: number of devices.
    images: images per step, on all devices.
    flops: FLOPs per step, on all devices.
    useful: FLOPs without rematerialization.
    traffic: HBM bytes that one device reads and writes.
    moved: bytes that one device sends.
  """
  compute = flops / devices / (EFFICIENCY * chip.flops)
  memory = traffic / chip.hbm_bandwidth
  collectives = EXPOSED * moved / chip.interconnect
  step = max(compute, memory) + collectives
  return Prediction(
    compute,
    memory,
    collectives,
    images / step if step else 0.0,
    useful / devices / step / chip.flops if step else 0.0,
  )
