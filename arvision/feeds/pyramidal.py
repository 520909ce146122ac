"""Next-scale prediction of partly denoised scales (E-CAR)."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from arvision.feeds.resample import UpAndDown
from arvision.process.flow import mix
from arvision.process.pyramidal import Stages, noises
from arvision.structs import Tokens


@dataclasses.dataclass(frozen=True)
class Pyramidal(UpAndDown):
  """The input is the previous scale as its stage leaves it: data and some noise.

  Targets (b, t, 2 c) are the end and the start of every token's stage, for
  `heads.flow.PyramidalFlow`. One noise, 'feed/noise' of the last scale, runs
  through all stages. Scales have twice the sides of the scale before.

  Source: arXiv 2412.14170 (E-CAR); arXiv 2410.05954.

  Attributes:
    kind, down: see `UpAndDown`.
    stages: the windows of levels.
  """

  kind: str = 'nearest'
  stages: Stages = Stages()

  noisy_past: ClassVar[bool] = True

  def train(self, tokens, layout, codec, draw):
    clean, channels = tokens.given, tokens.given.shape[-1]
    (height, width), entity = layout.grids[-1], layout.entity_of_token
    noise = draw.normal('feed/noise', (height * width, channels))
    noise = noise.reshape(-1, height, width, channels)
    noise = jnp.concatenate(
      [x.reshape(len(x), -1, channels) for x in noises(noise, layout.grids)],
      axis=1,
    )
    high, low = (x[entity] for x in self.stages.windows(layout.steps))
    end = mix(clean, noise, low)
    before, targets = super().train(tokens, layout, codec, draw)
    start = mix(before.values[:, layout.readout[:, 0]], noise, high)
    seen = Tokens(self.stages.end(end, entity))
    slots, _ = super().train(seen, layout, codec, draw)
    return slots, targets.replace(values=jnp.concatenate([end, start], -1))
