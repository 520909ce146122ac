"""Cells and rows of tables over seeds: means, deviations, paired differences."""

import dataclasses
from collections.abc import Mapping, Sequence

from arvision.evals import plots


@dataclasses.dataclass(frozen=True)
class Paired:
  """Differences between two variants, run by run with the same seed.

  Attributes:
    values: second - first of every seed that both have.
  """

  values: tuple[float, ...]

  @property
  def mean(self) -> float:
    return plots.mean_and_spread(self.values)[0]

  @property
  def spread(self) -> float:
    """Standard deviation (n - 1 degrees of freedom; 0 for one pair)."""
    return plots.mean_and_spread(self.values)[1]

  def text(self, digits: int) -> str:
    """'+0.86 (+0.60 to +1.11)': mean, smallest and largest."""
    low, high = min(self.values), max(self.values)
    return f'{self.mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})'


def paired(
  first: Mapping[int, float], second: Mapping[int, float]
) -> Paired | None:
  """The differences of two variants; None without a common seed.

  Args:
    first, second: seed -> value.
  """
  common = [seed for seed in first if seed in second]
  if not common:
    return None
  return Paired(tuple(second[seed] - first[seed] for seed in common))


def over_seeds(values: Sequence[float], digits: int) -> str:
  """'mean ± standard deviation' over the seeds."""
  mean, spread = plots.mean_and_spread(values)
  text = f'{mean:.{digits}f}'
  return f'{text} ± {spread:.{digits}f}' if len(values) > 1 else text


def markdown(
  rows: Sequence[Mapping[str, str]], words: Sequence[str] = ()
) -> list[str]:
  """The lines of a Markdown table.

  Args:
    rows: heading -> cell. The first row has all headings, in order.
    words: headings of columns that are not numbers, which are left-aligned.
  """
  headings = list(rows[0])
  line = lambda cells: f'| {" | ".join(cells)} |'
  rule = '|'.join('---' if h in words else '--:' for h in headings)
  cells = [[row[h] for h in headings] for row in rows]
  return [line(headings), f'|{rule}|', *map(line, cells)]
