"""Flow matching: the straight path between data and noise, levels and solvers.

    x_level = (1 - level) x + level noise,    velocity = noise - x

Level 0 is data and level 1 is noise; importers flip models that use the
reverse.

Source: arXiv 2210.02747 and arXiv 2209.03003 (flow matching, rectified flow).
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.process.counts import Counts, inner
from arvision.process.path import Flow, Path
from arvision.random import Draw
from arvision.ranges import Few, Share
from arvision.structs import Array, Query

LEVELS = ('logit_normal', 'uniform')


def mix(x: Array, noise: Array, level: Array | float) -> jax.Array:
  """(..., c) float32: x at a noise level.

  Args:
    x, noise: (..., c).
    level: (...) in [0, 1].
  """
  return Flow()(x, noise, level).values


def draw_levels(
  law: str, draw: Draw, name: str, shape: tuple[int, ...]
) -> jax.Array:
  """(b, *shape) levels in [0, 1).

  Args:
    law: distribution: 'uniform' or 'logit_normal' (sigmoid of a standard
      normal).
    draw: random stream of the examples.
    name: name of the draw.
    shape: shape per example.

  Raises:
    ValueError: unknown distribution.
  """
  if law == 'logit_normal':
    return jax.nn.sigmoid(draw.normal(name, shape))
  if law == 'uniform':
    return draw.uniform(name, shape)
  raise ValueError(f"levels='{law}': wanted one of {LEVELS}")


class Solver(Protocol):
  """Integrates from noise to data, given the field at every level.

  Attributes:
    velocities: whether the field must be a velocity, see `process.path.Path`.
  """

  velocities: ClassVar[bool]

  def levels(self, count: int) -> np.ndarray:
    """(count + 1,) float32 levels from 1 to 0 at which steps begin and end.

    A solver may take fewer steps than `count`.
    """

  def start(self, x: jax.Array) -> Any:
    """What it remembers before the first step, a pytree, for x (b, ..., c)."""

  def step(
    self,
    path: Path,
    x: jax.Array,
    field: jax.Array,
    level: jax.Array,
    to: jax.Array,
    draw: Draw,
    memory: Any,
  ) -> tuple[jax.Array, Any]:
    """One step.

    Args:
      path: of the field.
      x: (b, ..., c) float32 at `level`.
      field: (b, ..., c) there.
      level, to: () levels at which the step begins and ends.
      draw: random stream of this step.
      memory: of `start` or the last step.

    Returns:
      (b, ..., c) float32 at level `to`, and the new memory.
    """


class VelocitySolver(abc.ABC):
  """A solver of one velocity at a time, which remembers nothing."""

  velocities: ClassVar[bool] = True

  def start(self, x):
    del x
    return ()

  def step(self, path, x, field, level, to, draw, memory):
    del path
    return self(x, field, level, to, draw), memory

  @abc.abstractmethod
  def __call__(
    self,
    x: jax.Array,
    velocity: jax.Array,
    level: jax.Array,
    to: jax.Array,
    draw: Draw,
  ) -> jax.Array:
    """x (b, ..., c) at level `to`, see `Solver.step`."""


@dataclasses.dataclass(frozen=True)
class Euler(VelocitySolver):
  """Euler's method with equal steps."""

  def levels(self, count):
    return np.linspace(1, 0, count + 1).astype(np.float32)

  def __call__(self, x, velocity, level, to, draw):
    return x + (to - level) * velocity


@dataclasses.dataclass(frozen=True)
class TwoSpeeds(Checked, Euler):
  """Euler's method with two step sizes, large above `knee` and small below.

  Half of the steps go from level 1 to `knee`, the other half from `after` to 0.
  An odd count takes one step less. Counts in `even` have equal steps, as in the
  official sampler, which switches on the count.

  Source: OliverRensu/FlowAR, its Euler sampler.

  Attributes:
    knee: last level of the first half.
    after: first level of the second half.
    even: counts with equal steps.
  """

  knee: Share = 0.3
  after: Share = 0.25
  even: tuple[Few, ...] = (50,)

  def __post_init__(self):
    super().__post_init__()
    if not 1 > self.knee > self.after > 0:
      raise ValueError(
        f'knee={self.knee}, after={self.after}: wanted 1 > knee > after > 0'
      )

  def levels(self, count):
    if count in self.even:
      return super().levels(count)
    if count < 2:
      raise ValueError(
        f'{count} step of the solver TwoSpeeds: wanted at least 2; change '
        'config.head.counts or config.head.solver'
      )
    half = count // 2
    first = np.linspace(1, self.knee, half)
    second = np.linspace(self.after, 0, half + 1)
    return np.concatenate([first, second]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class EulerMaruyama(Checked, VelocitySolver):
  """The Euler-Maruyama method for the reverse SDE with diffusion 2 level.

      score = -((1 - level) velocity + x) / level
      drift = velocity - level score = (2 - level) velocity + x

  Adds noise (the draw 'solver/step') at every step but the last.

  Source: arXiv 2502.20388; OliverRensu/xAR, the sampler of SiT
    (arXiv 2401.08740).

  Attributes:
    lowest: level at which the last step begins; the other steps are equal.
  """

  lowest: Share = 0.04

  def levels(self, count):
    levels = np.linspace(1, self.lowest, count)
    return np.append(levels, 0).astype(np.float32)

  def __call__(self, x, velocity, level, to, draw):
    drift = (2 - level) * velocity + x
    std = jnp.where(to > 0, jnp.sqrt(2 * level * (level - to)), 0)
    noise = draw.normal('solver/step', x.shape[1:])
    return x + (to - level) * drift + std * noise


def solve(
  solver: Solver,
  counts: Counts,
  velocity: Callable[[jax.Array, jax.Array], jax.Array],
  noise: jax.Array,
  draw: Draw,
  query: Query,
) -> jax.Array:
  """Integrates from noise to data.

  Args:
    solver: the solver.
    counts: its steps at every AR step.
    velocity: x (b, ..., c) and level () -> velocity (b, ..., c).
    noise: (b, ..., c) float32.
    draw: random stream; step i uses `fold(i)`.
    query: states the AR step.

  Returns:
    (b, ..., c) float32.
  """

  def make(count):
    levels = solver.levels(count)
    steps = np.array([len(levels) - 1])
    return {'level': levels[:-1], 'to': levels[1:], 'steps': steps}

  table, count = inner(counts, make, query)
  # The solver may take fewer steps than `counts` says.
  if isinstance(count, int):
    count = len(table['level'])
  else:
    count = table['steps'][0]

  def advance(i, state):
    x, memory = state
    level, to = table['level'][i], table['to'][i]
    field = velocity(x, level)
    return solver.step(Flow(), x, field, level, to, draw.fold(i), memory)

  state = noise, solver.start(noise)
  return jax.lax.fori_loop(0, count, advance, state)[0]
