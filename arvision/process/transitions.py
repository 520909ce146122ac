"""Discrete diffusion: transition matrices that replace and mask ids.

Times n are 0 for data to `steps` for noise. The mask is the class after those of
the ids, and absorbs: what is masked stays masked.

Source: arXiv 2111.14822 (VQ-Diffusion); microsoft/VQ-Diffusion,
  modeling/transformers/diffusion_transformer.py; arXiv 2107.03006 (D3PM).
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.errors import ConfigError
from arvision.ranges import Count, Share
from arvision.structs import Array

# log p of what is impossible, as published: of a one-hot vector, of a result.
_NONE = float(np.log(np.float32(1e-30)))
LEAST = -70.0


class Tables(NamedTuple):
  """Probabilities of all times 0 .. steps, (steps + 1,) float64 each.

  An id is kept with `keep` (more exactly keep + replace), becomes every id with
  `replace`, and the mask with `mask`.
  """

  keep: np.ndarray
  replace: np.ndarray
  mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class MaskAndReplace(Checked):
  """Ids are masked, or replaced by a random id, with shares linear in time.

  Shares that add up to 1 leave nothing to be replaced: absorbing diffusion, of
  which the training is that of a masked model. Without masked ids it is uniform
  diffusion.

  Attributes:
    vocab_size: number of ids.
    steps: number of times.
    keep: share of the ids that are kept after the first and after the last time.
    masked: share of those that are masked, likewise.
  """

  vocab_size: Count
  steps: Count = 100
  keep: tuple[Share, Share] = (0.99999, 9e-6)
  masked: tuple[Share, Share] = (9e-6, 0.99999)

  def __post_init__(self):
    super().__post_init__()
    if self.steps < 2:
      raise ConfigError(
        f'MaskAndReplace.steps={self.steps}: wanted two or more times'
      )
    if any(k + m > 1 + 1e-9 for k, m in zip(self.keep, self.masked)):
      raise ConfigError(
        f'MaskAndReplace: keep={self.keep} and masked={self.masked} add up to '
        'more than 1'
      )

  @property
  def mask(self) -> int:
    """The class of masked tokens."""
    return self.vocab_size

  @property
  def absorbing(self) -> bool:
    """Whether ids are masked alone, never replaced."""
    sums = [k + m for k, m in zip(self.keep, self.masked)]
    return all(abs(s - 1) < 1e-9 for s in sums)

  @property
  def starts_masked(self) -> bool:
    """Whether noise is masked tokens; otherwise it is random ids."""
    return self.masked[1] > 0.5

  @functools.cached_property
  def whole(self) -> Tables:
    """From data to every time."""
    line = np.arange(self.steps) / (self.steps - 1)
    keep, mask = (
      np.append(0.0, line * (b - a) + a) for a, b in (self.keep, self.masked)
    )
    keep[0] = 1.0
    rest = 0 * keep if self.absorbing else 1 - keep - mask
    return Tables(keep, np.maximum(rest, 0) / self.vocab_size, mask)

  @functools.cached_property
  def single(self) -> Tables:
    """From the time before to every time; that of time 0 changes nothing."""
    keep, _, mask = self.whole
    own, other = np.ones_like(keep), np.zeros_like(mask)
    own[1:] = keep[1:] / np.maximum(keep[:-1], 1e-300)
    other[1:] = 1 - (1 - mask[1:]) / np.maximum(1 - mask[:-1], 1e-300)
    rest = 0 * keep if self.absorbing else 1 - own - other
    return Tables(own, np.maximum(rest, 0) / self.vocab_size, other)

  def time(self, level: Array) -> jax.Array:
    """(...) int32 times of levels in [0, 1]."""
    scaled = jnp.asarray(level, jnp.float32) * self.steps
    return jnp.round(scaled).astype(jnp.int32)

  def level(self, time: Array) -> jax.Array:
    """(...) float32 levels of times."""
    return jnp.asarray(time, jnp.float32) / self.steps

  def one_hot(self, ids: Array) -> jax.Array:
    """(...) int32 -> (..., classes) float32 log probabilities, mask included."""
    hot = jax.nn.one_hot(ids, self.vocab_size + 1, dtype=bool)
    return jnp.where(hot, 0.0, _NONE)

  def forward(self, log_x: jax.Array, time: Array) -> jax.Array:
    """log q(x_n | x_0), given log probabilities of x_0.

    Args:
      log_x: (b, t, classes) float32.
      time: (b,) or () int32.
    """
    return _moved(self.whole, log_x, time)

  def forward_once(self, log_x: jax.Array, time: Array) -> jax.Array:
    """log q(x_n | x_(n-1)); see `forward`."""
    return _moved(self.single, log_x, time)

  def posterior(self, log_x0: jax.Array, x: Array, time: Array) -> jax.Array:
    """log p(x_(n-1) | x_n), the mean of the posterior over x_0.

    In absorbing diffusion, what is not masked is x_0 and stays.

    Args:
      log_x0: (b, t, ids) float32 log probabilities of x_0.
      x: (b, t) int32 x_n, `mask` where masked.
      time: (b,) or () int32 n, from 1.

    Returns:
      (b, t, classes) float32, at least -70. It is not normalised where log_x0 is
      not (truncated).
    """
    masked = (jnp.asarray(x) == self.mask)[..., None]
    log_x = self.one_hot(x)
    ids = log_x[..., :-1]
    seen = jnp.where(  # log q(x_n | x_0) by x_0
      masked,
      _at(self.whole.mask, time),
      self.forward(log_x, time)[..., :-1],
    )
    if self.absorbing:
      log_x0 = jnp.where(masked, log_x0, ids)
      seen = jnp.where(masked | (ids == 0), seen, 0.0)
    step = jnp.where(  # log q(x_n | x_(n-1)) by x_(n-1)
      masked,
      _at(self.single.mask, time),
      self.forward_once(log_x, time)[..., :-1],
    )
    last = jnp.where(masked, 0.0, _NONE)
    step = jnp.concatenate([step, last], -1)
    none = jnp.full_like(last, _NONE)
    start = jnp.concatenate([log_x0 - seen, none], -1)
    total = jax.nn.logsumexp(start, -1, keepdims=True)
    found = self.forward(start - total, jnp.asarray(time) - 1) + step + total
    return jnp.clip(found, LEAST, 0.0)


def _moved(tables, log_x, time):
  keep, replace, mask = (_at(table, time) for table in tables)
  stays = _at(1 - tables.mask, time)
  ids = jnp.logaddexp(log_x[..., :-1] + keep, replace)
  masked = jnp.logaddexp(log_x[..., -1:] + stays, mask)
  return jnp.concatenate([ids, masked], -1)


def _at(table, time):
  """(b or 1, 1, 1) float32 log of the entries of times."""
  with np.errstate(divide='ignore'):
    logs = np.float32(np.log(table))
  return jnp.asarray(logs)[jnp.reshape(time, (-1, 1, 1))]
