"""Discrete-time diffusion with a learned variance (improved DDPM).

    x_t = sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) noise

A network predicts the noise in x_t and, per channel, the position of the log
variance of the reverse step between its two bounds. Tables are float64, arrays
computed with them float32.

Source: arXiv 2102.09672; openai/guided-diffusion; LTH14/mar, diffusion/.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from arvision.structs import Array

TRAIN_STEPS = 1000


def cosine_betas() -> np.ndarray:
  """(TRAIN_STEPS,) float64: alpha_bar ∝ cos²((t + 0.008) / 1.008 π / 2)."""
  t = np.arange(TRAIN_STEPS + 1, dtype=np.float64) / TRAIN_STEPS
  bar = np.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
  return np.minimum(1 - bar[1:] / bar[:-1], 0.999)


def linear_betas() -> np.ndarray:
  """(TRAIN_STEPS,) float64: from 1e-4 to 0.02 (DDPM, arXiv 2006.11239)."""
  return np.linspace(1e-4, 0.02, TRAIN_STEPS)


def spaced(count: int, steps: int = TRAIN_STEPS) -> np.ndarray:
  """(count,) int32 evenly spaced times in [0, steps), both ends included.

  Raises:
    ValueError: `count` is not in [1, steps].
  """
  if not 1 <= count <= steps:
    raise ValueError(
      f'{count} diffusion steps: wanted 1 to {steps}; change the numbers of '
      'config.head.counts, or config.head.highest'
    )
  stride = (steps - 1) / (count - 1) if count > 1 else 1.0
  # A cumulative sum, as in the official code: products round halves
  # differently.
  times = np.cumsum([0.0, *[stride] * (count - 1)])
  return np.round(times).astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """A noise schedule and its coefficients.

  Attributes:
    times: (n,) int32 time of every step, an input of the network.
    betas: (n,) float64 variance of the noise that every step adds.
  """

  times: np.ndarray
  betas: np.ndarray

  @functools.cached_property
  def alphas_bar(self) -> np.ndarray:
    """(n,) float64 remaining share of the data's variance."""
    return np.cumprod(1 - self.betas)

  @functools.cached_property
  def numbers(self) -> dict[str, np.ndarray]:
    """name -> (n,) float64 coefficients of the functions below."""
    bar, betas = self.alphas_bar, self.betas
    before = np.append(1.0, bar[:-1])
    variance = betas * (1 - before) / (1 - bar)
    # The variance of the first step is 0; it uses that of the second.
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
  """The training schedule."""
  return Table(np.arange(TRAIN_STEPS, dtype=np.int32), cosine_betas())


@functools.cache
def sample_table(count: int, highest: int = TRAIN_STEPS - 1) -> Table:
  """The training schedule, respaced to fewer times.

  Args:
    count: number of times.
    highest: the last time.
  """
  times = spaced(count, highest + 1)
  bar = train_table().alphas_bar[times]
  return Table(times, 1 - bar / np.append(1.0, bar[:-1]))


def coefficients(table: Table, t: Array) -> dict[str, jax.Array]:
  """name -> (..., 1) float32 coefficients of steps t (...)."""
  return {
    name: jnp.asarray(x, jnp.float32)[t][..., None]
    for name, x in table.numbers.items()
  }


def noised(
  at: dict[str, jax.Array], x: jax.Array, noise: jax.Array
) -> jax.Array:
  """x_t (..., c) from x and noise (..., c); `at` are `coefficients`."""
  return at['data'] * x + at['noise'] * noise


def posterior_mean(at: dict[str, jax.Array], x: jax.Array, noisy: jax.Array):
  """(..., c) mean of x_(t - 1) given x and x_t (..., c)."""
  return at['mean_of_data'] * x + at['mean_of_noisy'] * noisy


def predicted(
  at: dict[str, jax.Array], noise: jax.Array, share: jax.Array, noisy: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mean and log variance of x_(t - 1) under the network's prediction.

  Args:
    at: `coefficients` of the steps.
    noise: (..., c) predicted noise.
    share: (..., c) predicted position between the smallest variance (-1) and
      the largest (1).
    noisy: (..., c) x_t.

  Returns:
    (..., c) mean and (..., c) log variance.
  """
  x = at['data_inverse'] * noisy - at['noise_inverse'] * noise
  share = (share + 1) / 2
  log_variance = share * at['log_largest'] + (1 - share) * at['log_smallest']
  return posterior_mean(at, x, noisy), log_variance


def step_back(
  at: dict[str, jax.Array],
  prediction: tuple[jax.Array, jax.Array],
  noisy: jax.Array,
  noise: jax.Array | float,
) -> jax.Array:
  """x_(t - 1) (..., c) by ancestral sampling.

  Args:
    at: `coefficients` of the step.
    prediction: noise and share of the variance, see `predicted`.
    noisy: (..., c) x_t.
    noise: (..., c) standard normal noise; 0 at the last step.
  """
  mean, log_variance = predicted(at, *prediction, noisy)
  return mean + jnp.exp(0.5 * log_variance) * noise


def bound(
  at: dict[str, jax.Array],
  prediction: tuple[jax.Array, jax.Array],
  x: jax.Array,
  noisy: jax.Array,
  first: jax.Array,
) -> jax.Array:
  """(...) contribution of a step to the variational bound, in bits per channel.

  It is the KL divergence between the true and the predicted reverse step, or at
  t = 0 the negative log likelihood of x in bins of 2 / 255.

  Args:
    at: `coefficients` of the steps.
    prediction: noise and share of the variance, see `predicted`. Improved DDPM
      stops the gradient of the noise.
    x, noisy: (..., c) data and x_t.
    first: (...) bool, whether t = 0.
  """
  mean, log_variance = predicted(at, *prediction, noisy)
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
  """Log likelihood of the bin of x under a Gaussian; end bins are open."""
  inverse = jnp.exp(-log_std)
  upper = _normal_cdf(inverse * (x - mean + 1 / 255))
  lower = _normal_cdf(inverse * (x - mean - 1 / 255))
  inside = jnp.where(x > 0.999, 1 - lower, upper - lower)
  return jnp.log(jnp.maximum(jnp.where(x < -0.999, upper, inside), 1e-12))


def _normal_cdf(x):
  """The tanh approximation of improved DDPM."""
  cubic = x + 0.044715 * x**3
  return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * cubic))
