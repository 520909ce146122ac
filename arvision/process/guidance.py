"""Classifier-free guidance: one formula, and schedules of its scale.

    guided = null + scale * (cond - null)

Papers write it differently; a config states the paper's numbers in this form.
VAR's (1 + t) c - t u with t = cfg * si / (K - 1) is Linear(1, 1 + cfg), and a
scale of 1 is no guidance everywhere.
"""

import dataclasses
from typing import Any, Protocol

import jax.numpy as jnp

from arvision.build import Checked
from arvision.ranges import (
  AtLeast0,
  Count,
  Guidance,
  Natural,
  Positive,
  Share,
)


def guide(cond: Any, null: Any, scale: Any) -> Any:
  """null + scale * (cond - null)."""
  return null + scale * (cond - null)


class Schedule(Protocol):
  """The scale at a step of the decode loop."""

  @property
  def active(self) -> bool:
    """False where the scale is always 1: the null half is not computed."""

  def __call__(self, s: Any, steps: int, level: Any = None) -> Any:
    """The scale at step s of `steps`.

    Args:
      s: step of the decode loop.
      steps: of it.
      level: noise level of what is guided, for heads that take noise away in
        steps of their own.
    """

  def scaled_to(self, scale: float) -> 'Schedule':
    """The same shape with another largest scale."""


@dataclasses.dataclass(frozen=True)
class Constant(Checked):
  """One scale for all steps, or for the first ones (LlamaGen's cfg_interval).

  Attributes:
    scale: of the steps that are guided.
    until: first step that is not guided any more; None: all are.
  """

  scale: Guidance = 1.0
  until: Natural | None = None

  @property
  def active(self) -> bool:
    return self.scale != 1.0

  def __call__(self, s, steps, level=None):
    if self.until is None:
      return self.scale
    return jnp.where(s < self.until, self.scale, 1.0)

  def scaled_to(self, scale):
    return dataclasses.replace(self, scale=scale)


@dataclasses.dataclass(frozen=True)
class Linear(Checked):
  """From `start` at the first step to `end` at the last (VAR).

  Attributes:
    end: scale at the end.
    start: scale at the first step.
    over: number of steps after which `end` is reached; None: steps - 1, so that
      the last step has `end`. With `over` = steps (TiTok) the last step stays
      below it.
  """

  end: Guidance
  start: Guidance = 1.0
  over: Count | None = None

  @property
  def active(self) -> bool:
    return not self.start == self.end == 1.0

  def __call__(self, s, steps, level=None):
    over = self.over or max(steps - 1, 1)
    return self.start + (self.end - self.start) * s / over

  def scaled_to(self, scale):
    return dataclasses.replace(self, end=scale)


@dataclasses.dataclass(frozen=True)
class Listed(Checked):
  """1 + (scale - 1) shares[s], a share for every step (FlexVAR).

  Attributes:
    scale: where the share is 1.
    shares: of all steps.
  """

  scale: Guidance
  shares: tuple[AtLeast0, ...]

  @property
  def active(self) -> bool:
    return self.scale != 1.0 and any(self.shares)

  def __call__(self, s, steps, level=None):
    if steps != len(self.shares):
      raise ValueError(
        f'config.sampler.guidance.shares has {len(self.shares)} entries for '
        f'{steps} steps'
      )
    return 1 + (self.scale - 1) * jnp.asarray(self.shares)[s]

  def scaled_to(self, scale):
    return dataclasses.replace(self, scale=scale)


@dataclasses.dataclass(frozen=True)
class PowerCosine(Checked):
  """1 + (scale - 1) (1 - cos(pi (s / steps)^power)) / 2 (RAR, MaskDiT)."""

  scale: Guidance
  power: Positive = 1.0

  @property
  def active(self) -> bool:
    return self.scale != 1.0

  def __call__(self, s, steps, level=None):
    progress = (s / steps) ** self.power
    return 1 + (self.scale - 1) * (1 - jnp.cos(jnp.pi * progress)) / 2

  def scaled_to(self, scale):
    return dataclasses.replace(self, scale=scale)


@dataclasses.dataclass(frozen=True)
class Below(Checked):
  """A schedule that holds up to a noise level; above it, nothing is guided.

  Source: arXiv 2404.07724 (guidance in a limited interval); FlowAR.

  Attributes:
    schedule: the scale where there is guidance.
    level: highest noise level with guidance.
  """

  schedule: Schedule
  level: Share

  @property
  def active(self) -> bool:
    return self.schedule.active

  def __call__(self, s, steps, level=None):
    if level is None:
      raise ValueError(
        'config.sampler.guidance goes by noise levels, and hidden vectors have '
        "none; set config.sampler.site='field'"
      )
    scale = self.schedule(s, steps, level)
    return jnp.where(level <= self.level, scale, 1.0)

  def scaled_to(self, scale):
    return dataclasses.replace(self, schedule=self.schedule.scaled_to(scale))
