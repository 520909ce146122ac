"""Diffusion in discrete steps, with a learned variance (improved DDPM).

    x_t = sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) noise

A network says the noise of x_t and, channel by channel, where between its two
bounds the logarithm of the variance of a step back lies. Tables are float64,
what is computed with them float32.

Source: arXiv 2102.09672; openai/guided-diffusion; LTH14/mar, diffusion/.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TRAIN_STEPS = 1000


def cosine_betas(
  steps: int = TRAIN_STEPS, largest: float = 0.999
) -> np.ndarray:
  """(steps,) float64: alpha_bar falls as cos²((t + 0.008) / 1.008 pi / 2)."""
  t = np.arange(steps + 1, dtype=np.float64) / steps
  bar = np.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
  return np.minimum(1 - bar[1:] / bar[:-1], largest)


def spaced(count: int, steps: int = TRAIN_STEPS) -> np.ndarray:
  """(count,) int32: times among `steps`, about evenly spaced, both ends in.

  Raises:
    ValueError: more of them than there are steps, or none.
  """
  if not 1 <= count <= steps:
    raise ValueError(
      f'{count} diffusion steps: wanted 1 to {steps}; change the numbers of '
      'config.head.counts, or config.head.highest'
    )
  stride = (steps - 1) / (count - 1) if count > 1 else 1.0
  # Summed up as the official code does: products round differently at halves.
  times = np.cumsum([0.0, *[stride] * (count - 1)])
  return np.round(times).astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """A schedule, and the numbers that follow from it.

  Attributes:
    times: (n,) int32 what the network is told of every step.
    betas: (n,) float64 variance that every step adds.
  """

  times: np.ndarray
  betas: np.ndarray

  @functools.cached_property
  def alphas_bar(self) -> np.ndarray:
    """(n,) float64 share of the data's variance that is left."""
    return np.cumprod(1 - self.betas)

  @functools.cached_property
  def numbers(self) -> dict[str, np.ndarray]:
    """name -> (n,) float64 of what the functions below multiply by."""
    bar, betas = self.alphas_bar, self.betas
    before = np.append(1.0, bar[:-1])
    variance = betas * (1 - before) / (1 - bar)
    # The first has no variance at all; it takes that of the second.
    clipped = np.append(variance[1:2], variance[1:])
    if len(betas) == 1:
      clipped = np.array([1e-20])
    return {
      'data': np.sqrt(bar),
      'noise': np.sqrt(1 - bar),
      'data_inverse': np.sqrt(1 / bar),
      'noise_inverse': np.sqrt(1 / bar - 1),
      'mean_of_data': betas * np.sqrt(before) / (1 - bar),
      'mean_of_noisy': (1 - before) * np.sqrt(1 - betas) / (1 - bar),
      'log_smallest': np.log(clipped),
      'log_largest': np.log(betas),
    }


@functools.cache
def train_table() -> Table:
  """The schedule that is trained on."""
  return Table(np.arange(TRAIN_STEPS, dtype=np.int32), cosine_betas())


@functools.cache
def sample_table(count: int, highest: int = TRAIN_STEPS - 1) -> Table:
  """Some of its times, with the betas that lead from one to the next.

  Args:
    count: of the times.
    highest: the last of them.
  """
  times = spaced(count, highest + 1)
  bar = train_table().alphas_bar[times]
  return Table(times, 1 - bar / np.append(1.0, bar[:-1]))


def rows(table: Table, t: Any) -> dict[str, jax.Array]:
  """name -> (..., 1) float32 numbers of steps t (...), to go with channels."""
  return {
    name: jnp.asarray(x, jnp.float32)[t][..., None]
    for name, x in table.numbers.items()
  }


def noised(at: dict[str, Any], x: jax.Array, noise: jax.Array) -> jax.Array:
  """x_t (..., c) of x and noise (..., c); `at` are `rows` of the steps."""
  return at['data'] * x + at['noise'] * noise


def posterior_mean(at: dict[str, Any], x: jax.Array, noisy: jax.Array):
  """(..., c) the mean of x_(t - 1) given x and x_t (..., c)."""
  return at['mean_of_data'] * x + at['mean_of_noisy'] * noisy


def predicted(
  at: dict[str, Any], noise: jax.Array, share: jax.Array, noisy: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """What a network says of x_(t - 1).

  Args:
    at: `rows` of the steps.
    noise: (..., c) that it sees in x_t.
    share: (..., c) from -1, smallest variance, to 1, largest.
    noisy: (..., c) x_t.

  Returns:
    (..., c) mean, and (..., c) log of the variance.
  """
  x = at['data_inverse'] * noisy - at['noise_inverse'] * noise
  share = (share + 1) / 2
  log_variance = share * at['log_largest'] + (1 - share) * at['log_smallest']
  return posterior_mean(at, x, noisy), log_variance


def step_back(
  at: dict[str, Any],
  said: tuple[jax.Array, jax.Array],
  noisy: jax.Array,
  noise: jax.Array | float,
) -> jax.Array:
  """x_(t - 1) (..., c) by ancestral sampling.

  Args:
    at: `rows` of the step.
    said: noise and share of the variance, see `predicted`.
    noisy: (..., c) x_t.
    noise: (..., c) that is added, in standard deviations; 0 at the last step.
  """
  mean, log_variance = predicted(at, *said, noisy)
  return mean + jnp.exp(0.5 * log_variance) * noise


def bound(
  at: dict[str, Any],
  said: tuple[jax.Array, jax.Array],
  x: jax.Array,
  noisy: jax.Array,
  first: jax.Array,
) -> jax.Array:
  """(...) bits per channel that a step adds to the variational bound.

  The KL divergence of what the network says from the true step back. Where
  `first`, the negative log likelihood of x in bins of 2 / 255 instead.

  Args:
    at: `rows` of the steps.
    said: noise and share of the variance; the loss of improved DDPM stops the
      gradient of the noise.
    x, noisy: (..., c) the data and x_t.
    first: (...) bool, whether t = 0.
  """
  mean, log_variance = predicted(at, *said, noisy)
  true, log_true = posterior_mean(at, x, noisy), at['log_smallest']
  nats = 0.5 * (
    log_variance
    - log_true
    + jnp.exp(log_true - log_variance)
    + (true - mean) ** 2 * jnp.exp(-log_variance)
    - 1
  )
  likelihood = _log_likelihood(x, mean, 0.5 * log_variance)
  nats = jnp.where(first[..., None], -likelihood, nats)
  return jnp.mean(nats, -1) / math.log(2)


def _log_likelihood(x, mean, log_std):
  """Of the bin around x under a Gaussian; the last bins are open."""
  inverse = jnp.exp(-log_std)
  upper = _normal_cdf(inverse * (x - mean + 1 / 255))
  lower = _normal_cdf(inverse * (x - mean - 1 / 255))
  inside = jnp.where(x > 0.999, 1 - lower, upper - lower)
  return jnp.log(jnp.maximum(jnp.where(x < -0.999, upper, inside), 1e-12))


def _normal_cdf(x):
  """By tanh, as improved DDPM approximates it."""
  cubic = x + 0.044715 * x**3
  return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * cubic))
