"""Parts of a variant of E-CAR (arXiv 2412.14170), shared by its configs.

What is published are two ideas: the map of tokens grows from stage to stage, and
a stage runs a part of one flow trajectory. Here the first is FlowAR's
transformer over doubling scales, and the second are the windows of pyramidal flow
matching (arXiv 2410.05954).
"""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.flowar import parts


def ecar(
  config: ConfigDict,
  *,
  scales: tuple[int, ...],
  guidance: float,
  steps: int,
  **flowar,
) -> None:
  """The six parts of E-CAR.

  Stage s of n starts at level 1 - s / n.

  Args:
    config: to fill; it has a block of a KL tokenizer.
    scales: sides of the latent, each twice the one before.
    guidance: scale, the same in all stages.
    steps: of the solver, in every stage.
    **flowar: of `configs.flowar.parts.flowar`.
  """
  parts.pyramid(config.tokenizer, scales)
  parts.flowar(config, scales=scales, steps=steps, **flowar)
  del config.release  # there are no official weights
  count = len(scales)
  starts = tuple(1 - s / count for s in range(1, count))
  stages = block(type='process.pyramidal.Stages', starts=starts)
  config.feed = block(type='feeds.pyramidal.Pyramidal', stages=stages)
  config.head.update(type='heads.flow.PyramidalFlow', scales=tuple(scales))
  config.head.stages = stages
  config.head.solver = block(type='process.flow.Euler')
  config.condition.prefix = scales[0] ** 2
  config.sampler.guidance = block(
    type='process.guidance.Constant', scale=guidance
  )
