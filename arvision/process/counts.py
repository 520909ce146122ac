"""How many steps an inner loop takes at every step of the outer one (DiSA).

Entities that are drawn late are nearly determined by the earlier ones, so their
noise can be taken away in fewer steps.

Source: arXiv 2505.20297; Qinyu-Allen-Zhao/DiSA.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import Checked
from arvision.ranges import Few
from arvision.structs import Query


class Counts(Protocol):
  """Inner steps as a function of progress."""

  def __call__(self, s: int, steps: int) -> int:
    """Inner steps at step s of `steps`, both static."""


@dataclasses.dataclass(frozen=True)
class ConstantSteps(Checked):
  """As many at every step.

  Attributes:
    count: inner steps.
  """

  count: Few

  def __call__(self, s, steps):
    return self.count


@dataclasses.dataclass(frozen=True)
class Falling(Checked):
  """From `first` at the first step down to `last` at the last.

  Attributes:
    first: inner steps at the first step.
    last: at the last one.
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
) -> tuple[dict[str, jax.Array], Any]:
  """The numbers of the inner loop at a step of the outer one.

  Where the step is traced, one program holds the loops of all steps.

  Args:
    counts: inner steps.
    make: their number -> name -> (n,) numbers; n may differ.
    query: with the step and how many there are.

  Returns:
    name -> (longest n,) float32 or int32 numbers of this step, zeros beyond its
    own; and how many inner steps it has, traced only where steps differ.
  """
  steps = max(query.steps, 1)
  if isinstance(query.step, int):
    each = [counts(query.step, steps)]
  else:
    each = [counts(s, steps) for s in range(steps)]
  kinds = sorted({*each})
  made = [make(count) for count in kinds]
  if len(kinds) == 1:
    return {name: _as32(x) for name, x in made[0].items()}, kinds[0]

  def stacked(name):
    longest = max(len(table[name]) for table in made)
    rows = [np.pad(t[name], (0, longest - len(t[name]))) for t in made]
    return _as32(np.stack(rows))

  row = jnp.asarray([kinds.index(count) for count in each])[query.step]
  table = {name: stacked(name)[row] for name in made[0]}
  return table, jnp.asarray(each)[query.step]


def _as32(x):
  return jnp.asarray(x, jnp.float32 if x.dtype.kind == 'f' else jnp.int32)
