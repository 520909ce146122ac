"""Durations in steps, and learning-rate schedules."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from arvision.build import Checked, check, suggest, value
from arvision.errors import ConfigError
from arvision.ranges import AtLeast0, Positive, Share

UNITS = ('steps', 'epochs', 'examples', 'fraction')


def steps(
  duration: Mapping[str, float],
  *,
  batch_size: int,
  examples: int,
  total: int | None = None,
  key: str = 'duration',
  changes: Sequence[tuple[int, int]] = (),
) -> int:
  """The number of optimizer steps of a duration.

  Args:
    duration: exactly one of `steps`, `epochs` (passes over the training
      examples), `examples` (images seen) and `fraction` (of the whole run).
    batch_size: examples per step.
    examples: examples of the training split.
    total: steps of the whole run, for `fraction`.
    key: key of the duration in the config, for errors.
    changes: changes of the batch size, for durations that start with the run;
      see `Clock`.

  Returns:
    The nearest whole number of steps; at least 1 unless the duration is 0.

  Raises:
    ConfigError: no unit or several, an unknown unit, a negative number, or a
      fraction without `total`.
  """
  check(duration, Mapping, f'config.{key}')
  given = dict(duration.items())
  for name in given:
    if name not in UNITS:
      raise ConfigError(
        f'config.{key}.{name}: no such unit.' + suggest(name, UNITS)
      )
  if len(given) != 1:
    raise ConfigError(
      f'config.{key}={given}: wanted exactly one of {", ".join(UNITS)}'
    )
  ((unit, number),) = given.items()
  check(number, AtLeast0, f'config.{key}.{unit}')
  if unit == 'fraction' and total is None:
    raise ConfigError(
      f'config.{key}.fraction: the length of the run cannot be a fraction of '
      'itself; wanted steps, epochs or examples'
    )
  scale = {
    'steps': 1,
    'epochs': examples / batch_size,
    'examples': 1 / batch_size,
    'fraction': total or 0,
  }
  count = number * scale[unit]
  if changes and unit in ('epochs', 'examples'):
    # Steps before a change count with their own batch size.
    seen = number * (examples if unit == 'epochs' else 1)
    count = _follow([(n, k) for k, n in changes], 1 / batch_size, seen)
  count = max(1, round(count)) if number else 0
  # Optimizers count in int32.
  if count >= 2**31:
    raise ConfigError(
      f'config.{key}.{unit}={number} is {count:.3g} steps: wanted at most '
      '2147483647'
    )
  return count


@dataclasses.dataclass(frozen=True)
class Clock:
  """The length of a run, which converts durations to steps.

  Attributes:
    total: steps of the run.
    batch_size: examples per step, since the last change.
    examples: examples of the training split.
    changes: (steps, examples seen) of every change of the batch size.
  """

  total: int
  batch_size: int
  examples: int
  changes: tuple[tuple[int, int], ...] = ()

  def steps(self, duration: Mapping[str, float], key: str) -> int:
    """A duration in steps of the current batch size; see `steps`."""
    return steps(
      duration,
      batch_size=self.batch_size,
      examples=self.examples,
      total=self.total,
      key=key,
    )

  def at(self, duration: Mapping[str, float], key: str) -> int:
    """The step at which a duration that starts with the run ends."""
    return steps(
      duration,
      batch_size=self.batch_size,
      examples=self.examples,
      total=self.total,
      key=key,
      changes=self.changes,
    )

  def seen(self, step: int) -> int:
    """Examples seen in the first steps of the run."""
    return round(_follow(self.changes, self.batch_size, step))


def _follow(points, slope, x):
  """Linear interpolation from (0, 0) through points, then with a slope."""
  xs, ys = zip((0, 0), *points)
  if x < xs[-1]:
    return float(np.interp(x, xs, ys))
  return ys[-1] + (x - xs[-1]) * slope


def run_clock(
  config: Any, examples: int, changes: Sequence[tuple[int, int]] = ()
) -> Clock:
  """The clock of a run.

  Args:
    config: the whole config.
    examples: examples of the training split.
    changes: see `Clock`.

  Raises:
    ConfigError: config.train.duration is not a duration.
  """
  batch_size = value(config.data, 'batch_size')
  total = steps(
    config.train.duration,
    batch_size=batch_size,
    examples=examples,
    key='train.duration',
    changes=changes,
  )
  return Clock(total, batch_size, examples, tuple(changes))


@dataclasses.dataclass(frozen=True)
class Constant(Checked):
  """Constant learning rate after a linear warm-up.

  Attributes:
    warmup: duration of the warm-up; None for none.
    start: share of the peak at the first step of the warm-up.
  """

  warmup: Mapping[str, float] | None = None
  start: AtLeast0 = 0.0

  def make(self, peak: float, clock: Clock) -> optax.Schedule:
    """The schedule: step, counted from 0 -> learning rate.

    Args:
      peak: peak learning rate.
      clock: length of the run.

    Raises:
      ConfigError: see `steps`; or the warm-up is longer than the run.
    """
    warmup = 0
    if self.warmup is not None:
      warmup = clock.at(self.warmup, 'optim.schedule.warmup')
    # The last step of the run has the final value.
    rest = self.rest(peak, max(clock.total - 1 - warmup, 1))
    if not warmup:
      return rest
    if warmup >= clock.total:
      # A fraction of a run is at least one step.
      shorter = '.fraction=0.1' if clock.total > 1 else '=None'
      raise ConfigError(
        f'config.optim.schedule.warmup={dict(self.warmup or {})} is {warmup:,} steps, '
        f'but config.train.duration is {clock.total:,} steps; wanted a shorter '
        f'warm-up, --config.optim.schedule.warmup{shorter}, or a longer run, '
        f'--config.train.duration.steps={10 * warmup}'
      )
    first = line(self.start * peak, peak, 0, warmup)
    return optax.join_schedules([first, rest], [warmup])

  def rest(self, peak: float, length: int) -> optax.Schedule:
    """The schedule after the warm-up; at `length` it has its final value."""
    del length
    return optax.constant_schedule(peak)


@dataclasses.dataclass(frozen=True)
class WarmupCosine(Constant):
  """Half a cosine after a linear warm-up.

  Attributes:
    final: share of the peak at the last step.
  """

  final: AtLeast0 = 0.0

  def rest(self, peak: float, length: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, length, self.final)


@dataclasses.dataclass(frozen=True)
class WarmupHoldCosine(Constant):
  """Linear warm-up, a constant phase, then half a cosine.

  Source: OliverRensu/xAR, util/lr_sched.py.

  Differs: the official code has constants for the end of the constant phase and
  for the length of the run.

  Attributes:
    until: end of the constant phase, counted from the start of the run.
    final: share of the peak at the last step.
  """

  until: Mapping[str, float] = dataclasses.field(
    default_factory=lambda: {'fraction': 0.75}
  )
  final: AtLeast0 = 0.0

  def make(self, peak: float, clock: Clock) -> optax.Schedule:
    until = clock.at(self.until, 'optim.schedule.until')
    warmup = clock.at(self.warmup or {'steps': 0}, 'optim.schedule.warmup')
    if until < warmup:
      raise ConfigError(
        f'config.optim.schedule.until: {until} steps, but the warm-up takes '
        f'{warmup}; make config.optim.schedule.warmup shorter'
      )
    fall = self.fall(peak, max(clock.total - 1 - until, 1))
    return optax.join_schedules([super().make(peak, clock), fall], [until])

  def fall(self, peak: float, length: int) -> optax.Schedule:
    """The schedule after the constant phase, of so many steps."""
    return optax.cosine_decay_schedule(peak, length, self.final)


@dataclasses.dataclass(frozen=True)
class WarmupStableDecay(WarmupHoldCosine):
  """Linear warm-up, a constant phase, then exponential decay (WSD).

  Source: arXiv 2404.06395; thunlp/ACDiT, train.py: the rate halves six times in
    the last 15 % of the run.

  Attributes:
    until, final: see `WarmupHoldCosine`.
  """

  until: Mapping[str, float] = dataclasses.field(
    default_factory=lambda: {'fraction': 0.85}
  )
  final: Positive = 2.0**-6

  def fall(self, peak, length):
    return optax.exponential_decay(peak, length, self.final)


@dataclasses.dataclass(frozen=True)
class WarmupLin0(Constant):
  """Linear warm-up, a constant phase, then linear decay.

  Source: the schedule 'lin0' of FoundationVision/VAR.

  Attributes:
    flat: length of the constant phase, as a share of the run after the warm-up.
    final: share of the peak at the last step.
  """

  start: AtLeast0 = 0.005
  flat: Share = 0.05
  final: AtLeast0 = 0.1

  def rest(self, peak: float, length: int) -> optax.Schedule:
    return line(peak, self.final * peak, self.flat * length, length)


@dataclasses.dataclass(frozen=True)
class Stairs(Constant):
  """Step decay after a linear warm-up.

  Attributes:
    at: points of decay, as shares of the run after the warm-up, in order.
    factor: factor of the learning rate at each of them.
  """

  at: tuple[Share, ...] = ()
  factor: AtLeast0 = 0.1

  def rest(self, peak: float, length: int) -> optax.Schedule:
    steps = {round(share * length): self.factor for share in self.at}
    return optax.piecewise_constant_schedule(peak, steps)


def line(start: float, end: float, first: float, last: float) -> optax.Schedule:
  """Linear schedule from step `first` to step `last`, constant outside.

  Differs: `optax.linear_schedule` adds and subtracts the end value, which costs
  a small start value half of its digits; and it takes only whole steps.
  """

  def schedule(step):
    share = jnp.clip((step - first) / max(last - first, 1e-9), 0.0, 1.0)
    return start * (1 - share) + end * share

  return schedule
