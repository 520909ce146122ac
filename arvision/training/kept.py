"""Metadata of checkpoints, and the policy that keeps some of them."""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arvision.errors import ConfigError


def read_meta(folder: pathlib.Path) -> dict[str, Any]:
  """The metadata of the checkpoint in a folder named by its step.

  Returns:
    'step'; 'data', the state of the data iterator; 'facts', the config keys
    that it depends on; and 'figures', the held-out metrics of this step.

  Raises:
    ValueError, OSError: it is damaged.
  """
  try:
    meta = json.loads((folder / 'meta' / 'metadata').read_bytes())
  except RecursionError as error:
    raise ValueError('meta/metadata is nested too deep') from error
  whole = isinstance(meta, dict) and meta.get('step') == int(folder.name)
  if not whole or 'data' not in meta or not isinstance(meta.get('facts'), dict):
    raise ValueError('meta/metadata does not belong to this checkpoint')
  figures = meta.get('figures')
  return {**meta, 'figures': figures if isinstance(figures, dict) else {}}


def best_of(folder: pathlib.Path, steps: Sequence[int], best: str) -> int:
  """The step of the best checkpoint.

  Args:
    folder: folder of the checkpoints.
    steps: their steps.
    best: name of a metric, see `Kept`.

  Raises:
    ConfigError: no checkpoint has that metric.
  """
  kept = Kept(1, best)
  kept.read(folder, steps)
  found = kept.best(steps)
  if found is None:
    raise ConfigError(
      f"--step=best: config.checkpoint.best='{best}' in this run, but none of "
      f'its checkpoints ({steps}) has this metric; name a step'
    )
  return found


class Kept:
  """Orbax policy that keeps the newest checkpoints, the best one and every k-th.

  Attributes:
    figures: step -> held-out metrics of the checkpoint.
  """

  def __init__(self, keep: int, best: str = '', every: int = 0):
    """Starts without metrics; see `read`.

    Args:
      keep: number of newest checkpoints to keep.
      best: name of a metric whose lowest value is the best, or '-' and the name
        of a metric whose highest value is the best; '' for none.
      every: period in steps; the first checkpoint of each one is kept. 0 for
        none.
    """
    self._keep, self._every = keep, every
    self._name = best.removeprefix('-')
    self._sign = -1.0 if best.startswith('-') else 1.0
    self.figures: dict[int, Mapping[str, Any]] = {}

  def read(self, folder: pathlib.Path, steps: Iterable[int]) -> None:
    """Reads the metrics of checkpoints on disk; damaged ones have none."""
    self.figures = {}
    for step in steps:
      try:
        self.figures[step] = read_meta(folder / str(step))['figures']
      except (ValueError, OSError):
        continue

  def best(self, steps: Iterable[int]) -> int | None:
    """The best of some steps, None where none of them has the metric."""
    values = {s: self._value(self.figures.get(s, {})) for s in steps}
    measured = [s for s, v in values.items() if v is not None]
    return min(measured, key=lambda s: (values[s], s), default=None)

  def improves(self, figures: Mapping[str, Any], steps: Iterable[int]) -> bool:
    """Whether metrics are better than those of all given steps."""
    value, best = self._value(figures), self.best(steps)
    if value is None:
      return False
    return best is None or value < self._value(self.figures[best])

  def _value(self, figures):
    value = figures.get(self._name)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
      return None
    return self._sign * value

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    """See `orbax.checkpoint.checkpoint_managers.PreservationPolicy`."""
    del context
    steps = [c.step for c in checkpoints]
    wanted = {*sorted(steps)[-self._keep :], self.best(steps)}
    if self._every:
      firsts: dict[int, int] = {}
      for step in sorted(steps):
        firsts.setdefault(step // self._every, step)
      wanted |= {step for period, step in firsts.items() if period}
    return [step in wanted for step in steps]
