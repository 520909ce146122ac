"""How long a step should take: a prediction from published figures.

    step = max(FLOPs / (0.75 peak), bytes / HBM bandwidth)
           + 0.5 collective bytes / interconnect

all of one device. Large products reach about three quarters of the peak, memory
is read while products are computed, and about half of what is sent is hidden
behind them. Nothing of this was measured on a TPU.
"""

import dataclasses

from arvision.plan.chips import Chip

EFFICIENCY = 0.75
EXPOSED = 0.5


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Seconds of the terms of a step, and what follows.

  Attributes:
    compute, memory, collectives: of the three terms.
    images_per_second: of all devices.
    mfu: share of the peak that useful FLOPs take; what is computed twice to
      save memory does not count.
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
  """The prediction of a program.

  Args:
    chip: figures of one device.
    devices: that share the work.
    images: of a step, on all devices.
    flops: of a step, on all devices.
    useful: those of them that are not computed a second time.
    traffic: bytes of HBM that one device reads and writes.
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
