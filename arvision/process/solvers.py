"""Solvers of diffusion, for the field of any path (`process.path`).

Those of flow matching alone are in `process.flow`.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.process.diffusion import TRAIN_STEPS
from arvision.process.path import level_of
from arvision.ranges import Share


def _levels(times):
  """(count + 1,) float32 levels of falling times (count,), then that of data."""
  return np.append(level_of(times), 0).astype(np.float32)


def _check(count, most):
  if not 1 <= count <= most:
    raise ValueError(
      f'{count} diffusion steps: wanted 1 to {most}; change the numbers of '
      'config.sampler.counts'
    )


@dataclasses.dataclass(frozen=True)
class DDIM(Checked):
  """Denoising diffusion implicit models: x_to of the data and the noise in x.

      x_to = scale_to data + sqrt(std_to^2 - sigma^2) noise + sigma z
      sigma = eta std_to / std sqrt(1 - scale^2 / scale_to^2)

  The times are evenly spaced from the last to the first, rounded down.

  Source: arXiv 2010.02502, equations 12 and 16.

  Attributes:
    eta: share of the noise z (the draw 'solver/step') of ancestral sampling.
  """

  eta: Share = 0.0

  velocities: ClassVar[bool] = False

  def levels(self, count):
    _check(count, TRAIN_STEPS)
    return _levels(np.linspace(TRAIN_STEPS - 1, 0, count).astype(int))

  def start(self, x):
    del x
    return ()

  def step(self, path, x, field, level, to, draw, memory):
    data, noise = path.split(x, field, level)
    (scale, std), (scale_to, std_to) = map(path.coefficients, (level, to))
    sigma = std_to / std * jnp.sqrt(1 - (scale / scale_to) ** 2) * self.eta
    kept = jnp.sqrt(jnp.maximum(std_to**2 - sigma**2, 0))
    x = scale_to * data + kept * noise
    if self.eta:
      x = x + sigma * draw.normal('solver/step', x.shape[1:])
    return x, memory


@dataclasses.dataclass(frozen=True)
class Ancestral(DDIM):
  """Ancestral sampling of DDPM, with the variance of the true reverse step.

  Source: arXiv 2006.11239; the equation of `DDIM` with eta = 1.
  """

  eta: Share = 1.0


@dataclasses.dataclass(frozen=True)
class DPMSolver:
  """DPM-Solver++(2M): a multistep method for the predicted data.

  With lambda = log(scale / std), h = lambda_to - lambda, and the data D of this
  step and D' of the last one:

      x_to = std_to / std x + scale_to (1 - exp(-h)) (D + (D - D') / (2 r))
      r = (lambda - lambda') / h

  The first and the last step are of first order, without D'.

  Source: arXiv 2211.01095, algorithm 2; the times are those of
    `DPMSolverMultistepScheduler` of huggingface/diffusers, which the sampler of
    ACDiT takes.
  """

  velocities: ClassVar[bool] = False

  def levels(self, count):
    _check(count, TRAIN_STEPS - 1)
    times = np.linspace(0, TRAIN_STEPS - 1, count + 1).round()
    return _levels(times[:0:-1])

  def start(self, x):
    # Level 0 stands for no last step.
    return jnp.zeros_like(x), jnp.float32(0)

  def step(self, path, x, field, level, to, draw, memory):
    del draw
    data, _ = path.split(x, field, level)
    before, past = memory
    (scale, std), (scale_to, std_to) = map(path.coefficients, (level, to))
    now = jnp.log(scale / std)
    h = jnp.log(scale_to / std_to) - now  # infinite where `to` is data
    scale, std_past = path.coefficients(past)
    r = (now - jnp.log(scale / std_past)) / h
    second = (past > 0) & (std_to > 0)
    mean = data + jnp.where(second, (data - before) / (2 * r), 0)
    x = std_to / std * x + scale_to * (1 - jnp.exp(-h)) * mean
    return x, (data, jnp.float32(level))
