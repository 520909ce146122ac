"""Number of denoising steps at every AR step (DiSA).

Earlier entities nearly determine the late ones, so late entities need fewer
denoising steps.

Source: arXiv 2505.20297; Qinyu-Allen-Zhao/DiSA.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.ranges import Few
from arvision.structs import Query


class Counts(Protocol):
  """Denoising steps as a function of the AR step."""

  def __call__(self, s: int, steps: int) -> int:
    """Denoising steps at AR step s of `steps`, both static."""


@dataclasses.dataclass(frozen=True)
class ConstantSteps(Checked):
  """The same number at every AR step.

  Attributes:
    count: denoising steps.
  """

  count: Few

  def __call__(self, s, steps):
    return self.count


@dataclasses.dataclass(frozen=True)
class Falling(Checked):
  """A number that falls linearly.

  Attributes:
    first: denoising steps at the first AR step.
    last: denoising steps at the last AR step.
  """

  first: Few
  last: Few

  def __post_init__(self):
    super().__post_init__()
    if self.last > self.first:
      raise ValueError(
        f'first={self.first}, last={self.last}: wanted last <= first'
      )

  def __call__(self, s, steps):
    rest = (steps - 1 - s) / max(steps - 1, 1)
    return int(rest * (self.first - self.last) + self.last)


def inner(
  counts: Counts, make: Callable[[int], dict[str, np.ndarray]], query: Query
) -> tuple[dict[str, jax.Array], int | jax.Array]:
  """The tables of the denoising loop at an AR step.

  For a traced AR step they are selected from the tables of all steps.

  Args:
    counts: denoising steps per AR step.
    make: number of denoising steps -> tables by name, (n,) each; n may vary.
    query: states the AR step, their number, and a share of the denoising steps.

  Returns:
    tables by name, (longest n,) float32 or int32, padded with zeros; and the
    number of denoising steps, traced only if it varies.
  """
  steps = max(query.steps, 1)
  alone = [query.step] if isinstance(query.step, int) else range(steps)
  each = [max(1, int(counts(s, steps) * query.share)) for s in alone]
  kinds = sorted({*each})
  made = [make(count) for count in kinds]
  if len(kinds) == 1:
    return {name: _as32(x) for name, x in made[0].items()}, kinds[0]

  def stacked(name):
    longest = max(len(table[name]) for table in made)
    padded = [np.pad(t[name], (0, longest - len(t[name]))) for t in made]
    return _as32(np.stack(padded))

  kind = jnp.asarray([kinds.index(count) for count in each])[query.step]
  table = {name: stacked(name)[kind] for name in made[0]}
  return table, jnp.asarray(each)[query.step]


def _as32(x):
  return jnp.asarray(x, jnp.float32 if x.dtype.kind == 'f' else jnp.int32)
