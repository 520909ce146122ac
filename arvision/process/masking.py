"""Masking schedules and confidence policies of masked samplers.

Source: arXiv 2202.04200 (MaskGIT); bytedance/1d-tokenizer, modeling/maskgit.py.
"""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.random import Draw, Picked
from arvision.ranges import AtLeast0, Positive
from arvision.structs import Array

# Schedules of the masked share as a function of progress.
SCHEDULES = ('arccos', 'cosine', 'linear', 'square', 'root', 'autonat')

# The share is 1 - progress to this power.
_POWERS = {'linear': 1, 'square': 2, 'root': 0.5, 'autonat': 2.5}


def masked_share(schedule: str, progress: Any, xp: Any = jnp) -> Any:
  """The masked share, from 1 at progress 0 to 0 at progress 1.

  Args:
    schedule: one of `SCHEDULES`.
    progress: in [0, 1].
    xp: jax.numpy, or math for Python numbers.

  Raises:
    ValueError: unknown schedule.
  """
  if schedule == 'arccos':
    return xp.acos(progress) / (math.pi / 2)
  if schedule == 'cosine':
    return xp.cos(math.pi / 2 * progress)
  if schedule in _POWERS:
    return 1 - progress ** _POWERS[schedule]
  raise ValueError(f"schedule='{schedule}': wanted one of {SCHEDULES}")


def share_rate(schedule: str, progress: Array) -> jax.Array:
  """How fast the masked share falls: minus its derivative, (...) float32.

  Args:
    schedule: one of `SCHEDULES`.
    progress: in [0, 1]; rates that are infinite at an end are cut off there.
  """
  x = jnp.clip(progress, 1e-6, 1 - 1e-6)
  if schedule == 'arccos':
    return 2 / math.pi / jnp.sqrt(1 - x**2)
  if schedule == 'cosine':
    return math.pi / 2 * jnp.sin(math.pi / 2 * x)
  power = _POWERS[schedule]
  return power * x ** (power - 1)


def progress_of(schedule: str, share: np.ndarray) -> np.ndarray:
  """The progress at which the schedule has a masked share in [0, 1]."""
  if schedule == 'arccos':
    return np.cos(math.pi / 2 * share)
  if schedule == 'cosine':
    return np.arccos(share) / (math.pi / 2)
  return (1 - share) ** (1 / _POWERS[schedule])


def count_shares(schedule: str, tokens: int) -> np.ndarray:
  """(tokens,) probabilities of 1, 2, ... masked tokens at a random progress.

  The count is the masked share of the tokens, rounded, and at least 1.
  """
  ends = (np.arange(1, tokens) + 0.5) / tokens
  above = np.array([1.0, *progress_of(schedule, ends), 0.0])
  return above[:-1] - above[1:]


def masked_counts(schedule: str, steps: int, tokens: int) -> list[int]:
  """Number of masked tokens after every step.

  Every step unmasks at least one token while there are any, and the last step
  unmasks all that are left, at least one. Without tokens all counts are 0.

  With 'autonat', where a step would unmask none, the last one gives it a token;
  with other schedules the next steps wait until the schedule has caught up.

  Source: liebenxj/ReCAP, examples/MaskGIT+ReCAP/cache_decoding.py ('autonat').
  """
  counts, left, before = [], tokens, tokens
  for i in range(1, steps):
    share = masked_share(schedule, i / steps, math)
    planned = math.floor(tokens * share)
    most = left - max(before - planned, 1) if schedule == 'autonat' else planned
    left = max(min(1, tokens), min(left - 1, most))
    before = planned
    counts.append(left)
  return [*counts, 0]


def least_sure(sure: jax.Array, count: jax.Array) -> jax.Array:
  """(b, t) bool: the `count` tokens of an example with the lowest confidence.

  Among tokens of equal confidence, the last ones are selected.

  Differs: the official code also masks all ties. With equal confidences
    everywhere, it keeps nothing until the last step.

  Args:
    sure: (b, t) float32.
    count: (b,) int32.
  """
  backwards = jnp.argsort(sure[:, ::-1], axis=-1, stable=True)
  rank = jnp.argsort(backwards, axis=-1)[:, ::-1]
  return rank < count[:, None]


def masked_of_groups(
  uniform: jax.Array, share: jax.Array, group: np.ndarray
) -> jax.Array:
  """(b, t) bool: of every group the same share of tokens, those of low numbers.

  Args:
    uniform: (b, t) numbers that order the tokens.
    share: (b,); of n tokens ceil(n * share) are masked, at least one.
    group: (t,) static number of the group of every token, from 0.
  """
  masked = jnp.zeros(uniform.shape, bool)
  for g in range(group.max() + 1):
    at = np.flatnonzero(group == g)
    rank = jnp.argsort(jnp.argsort(uniform[:, at], 1), 1)
    # In float32, a share of n tokens may lie just above a whole number.
    count = jnp.maximum(jnp.ceil(len(at) * share - 1e-4), 1)
    masked = masked.at[:, at].set(rank < count[:, None])
  return masked


def truncated_normal(
  uniform: Array, mean: float, std: float, low: float, high: float
) -> jax.Array:
  """(...) float32 truncated normal in [low, high], from uniform numbers."""
  ends = [jax.scipy.special.ndtr((x - mean) / std) for x in (low, high)]
  at = ends[0] + (ends[1] - ends[0]) * jnp.asarray(uniform)
  return jnp.clip(mean + std * jax.scipy.special.ndtri(at), low, high)


class Policy(Protocol):
  """Samples ids and ranks them by confidence."""

  def __call__(
    self,
    logits: jax.Array,
    draw: Draw | Picked,
    noise: Array | float | None,
    progress: Array | float = 0.0,
  ) -> tuple[jax.Array, jax.Array]:
    """Ids int32 and their confidence float32, (b, t) or (b, t, parts) both.

    Args:
      logits: (b, t, v) or (b, t, parts, v).
      draw: random stream of this step.
      noise: factor of the noise, from 1 down to 0; None: argmax, no noise.
      progress: from 0 at the first step to 1 at the last.
    """


@dataclasses.dataclass(frozen=True)
class NoisyLogits(Checked):
  """Gumbel noise on the logits, for sampling and for ranking (TiTok).

  Attributes:
    temperature: initial scale of the noise.
  """

  temperature: AtLeast0

  def __call__(self, logits, draw, noise, progress=0.0):
    if noise is None:
      ids = jnp.argmax(logits, -1)
      return ids.astype(jnp.int32), _at(logits, ids)
    scale = self.temperature * noise
    ids = jnp.argmax(
      logits + scale * draw.gumbel('sampler/ids', logits.shape[1:]), -1
    )
    chosen = _at(logits, ids)
    sure = chosen + scale * draw.gumbel('sampler/confidence', chosen.shape[1:])
    return ids.astype(jnp.int32), sure


@dataclasses.dataclass(frozen=True)
class LikelyFirst(Checked):
  """Samples ids from the logits, ranks by log p with Gumbel noise (MaskGIT).

  Attributes:
    temperature: initial scale of the noise.
  """

  temperature: AtLeast0

  def __call__(self, logits, draw, noise, progress=0.0):
    log_p = jax.nn.log_softmax(logits, -1)
    if noise is None:
      ids = jnp.argmax(logits, -1)
      return ids.astype(jnp.int32), _at(log_p, ids)
    ids = draw.categorical('sampler/ids', logits)
    chosen = _at(log_p, ids)
    scale = self.temperature * noise
    return ids, chosen + scale * draw.gumbel(
      'sampler/confidence', chosen.shape[1:]
    )


@dataclasses.dataclass(frozen=True)
class SampledAgain(Checked):
  """Ranks by log p of ids that are thrown away, and samples ids again (AutoNAT).

  Confidences are those of `LikelyFirst`. The temperature of the ids is
  last + (1 - sqrt(progress)) (1 - last).

  Source: arXiv 2505.19089; liebenxj/ReCAP, examples/MaskGIT+ReCAP.

  Attributes:
    temperature: initial scale of the noise of confidences.
    last: temperature of the ids at the last step; at the first it is 1.
  """

  temperature: AtLeast0
  last: Positive = 1.0

  def __call__(self, logits, draw, noise, progress=0.0):
    if noise is None:
      return LikelyFirst(self.temperature)(logits, draw, noise)
    log_p = jax.nn.log_softmax(logits, -1)
    chosen = _at(log_p, draw.categorical('sampler/ranked', logits))
    scale = self.temperature * noise
    sure = chosen + scale * draw.gumbel('sampler/confidence', chosen.shape[1:])
    ids = draw.categorical('sampler/ids', logits / self.heat(progress))
    return ids, sure

  def heat(self, progress: Array | float) -> jax.Array:
    """The temperature of the ids."""
    return self.last + (1 - jnp.sqrt(progress)) * (1 - self.last)


def _at(x, ids):
  return jnp.take_along_axis(x, ids[..., None], -1)[..., 0]
