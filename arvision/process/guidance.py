"""Classifier-free guidance and schedules of its scale.

    guided = null + scale * (cond - null)

A scale of 1 is no guidance. Configs convert the formula of their paper: VAR's
(1 + t) c - t u with t = cfg * si / (K - 1) is Linear(start=1, end=1 + cfg).
"""

import dataclasses
import math
from typing import Annotated, Literal, Protocol

import jax.numpy as jnp

from arvision.build import Checked
from arvision.ranges import (
  NOT_EMPTY,
  AtLeast0,
  Count,
  Guidance,
  Natural,
  Positive,
  Share,
)
from arvision.structs import Array


def guide(cond: Array, null: Array, scale: Array | float) -> Array:
  """null + scale * (cond - null)."""
  return null + scale * (cond - null)


class Schedule(Protocol):
  """The guidance scale at every step of the decode loop."""

  @property
  def active(self) -> bool:
    """False if the scale is always 1, so that no null pass is needed."""

  def __call__(
    self, s: Array | int, steps: int, level: Array | None = None
  ) -> Array | float:
    """The scale at step s.

    Args:
      s: step of the decode loop, int or () int32.
      steps: number of steps.
      level: () noise level of the guided field, for heads that denoise; else
        None.
    """

  def scaled_to(self, scale: float) -> 'Schedule':
    """The same schedule with another largest scale."""


@dataclasses.dataclass(frozen=True)
class Constant(Checked):
  """A constant scale, for all or the first steps (LlamaGen's cfg_interval).

  Attributes:
    scale: scale of the guided steps.
    until: number of guided steps; None: all.
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
  """A scale that changes linearly from `start` to `end` (VAR).

  Attributes:
    end: scale after `over` steps.
    start: scale at the first step.
    over: None: steps - 1, so that the last step has the scale `end`. With
      `over` = steps (TiTok) the last step stays below it.
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
class Ramp(Checked):
  """A scale that grows linearly from 1, then stays (Token-Shuffle's half-linear).

  Attributes:
    scale: scale after the first steps.
    share: of the steps in which it grows.
  """

  scale: Guidance
  share: Positive = 0.5

  @property
  def active(self) -> bool:
    return self.scale != 1.0

  def __call__(self, s, steps, level=None):
    grown = jnp.minimum(s / (self.share * steps), 1.0)
    return 1.0 + (self.scale - 1.0) * grown

  def scaled_to(self, scale):
    return dataclasses.replace(self, scale=scale)


@dataclasses.dataclass(frozen=True)
class Rising(Checked):
  """1 + (scale - 1) f((s + 1) / steps): the last step has the scale (ELM).

  Source: Pepper-lll/LMforImageGeneration, llama/ar_model.py.

  Attributes:
    scale: scale of the last step.
    shape: f, from 0 to 1: 'linear', 'square', 'cos' (a quarter of a wave), 'log'
      (of 1 to e), or 'square_root', which is one step late as published: it
      starts at 1 and ends below the scale.
  """

  scale: Guidance
  shape: Literal['linear', 'square', 'square_root', 'cos', 'log'] = 'linear'

  @property
  def active(self) -> bool:
    return self.scale != 1.0

  def __call__(self, s, steps, level=None):
    x = (s + 1) / steps
    shares = {
      'linear': lambda: x,
      'square': lambda: x**2,
      'square_root': lambda: (s / steps) ** 0.5,
      'cos': lambda: jnp.sin(jnp.pi / 2 * x),
      'log': lambda: jnp.log1p((math.e - 1) * x),
    }
    return 1 + (self.scale - 1) * shares[self.shape]()

  def scaled_to(self, scale):
    return dataclasses.replace(self, scale=scale)


@dataclasses.dataclass(frozen=True)
class Listed(Checked):
  """1 + (scale - 1) shares[s], with a listed share for every step (FlexVAR).

  Attributes:
    scale: scale for a share of 1.
    shares: one share per step.
  """

  scale: Guidance
  shares: Annotated[tuple[AtLeast0, ...], NOT_EMPTY]

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
  """1 + (scale - 1) (1 - cos(pi (s / steps)^power)) / 2 (RAR, MaskDiT).

  Attributes:
    scale: guidance of the last step.
    power: larger ones begin to guide later.
  """

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
  """Guidance below a noise level only.

  Source: arXiv 2404.07724 (guidance in a limited interval); FlowAR.

  Attributes:
    schedule: the scale at guided levels.
    level: highest guided noise level.
  """

  schedule: Schedule
  level: Share

  @property
  def active(self) -> bool:
    return self.schedule.active

  def __call__(self, s, steps, level=None):
    if level is None:
      raise ValueError(
        'config.sampler.guidance depends on the noise level, which hidden states '
        "do not have; set config.sampler.site='field'"
      )
    scale = self.schedule(s, steps, level)
    return jnp.where(level <= self.level, scale, 1.0)

  def scaled_to(self, scale):
    return dataclasses.replace(self, schedule=self.schedule.scaled_to(scale))
