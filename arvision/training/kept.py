"""What a checkpoint says of itself, and which checkpoints are kept."""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arvision.errors import ConfigError


def read_meta(folder: pathlib.Path) -> dict[str, Any]:
  """The JSON of the checkpoint in a folder named by its step.

  Returns:
    'step'; 'data', the position in it; 'facts', that give it its meaning; and
    'figures', of the held-out evaluation of this very step.

  Raises:
    ValueError, OSError: it is damaged.
  """
  try:
    meta = json.loads((folder / 'meta' / 'metadata').read_bytes())
  except RecursionError as error:
    raise ValueError('meta/metadata is nested too deep') from error
  whole = isinstance(meta, dict) and meta.get('step') == int(folder.name)
  if not whole or 'data' not in meta or not isinstance(meta.get('facts'), dict):
    raise ValueError('meta/metadata is not that of this checkpoint')
  figures = meta.get('figures')
  return {**meta, 'figures': figures if isinstance(figures, dict) else {}}


def best_of(folder: pathlib.Path, steps: Sequence[int], best: str) -> int:
  """The step of the best of some checkpoints; see `Kept`.

  Raises:
    ConfigError: none of them was measured by that figure.
  """
  kept = Kept(1, best)
  kept.read(folder, steps)
  found = kept.best(steps)
  if found is None:
    raise ConfigError(
      f"--step=best: config.checkpoint.best='{best}' in this run, by which "
      f'none of its checkpoints ({steps}) was measured; name a step'
    )
  return found


class Kept:
  """The newest checkpoints, and the best by a figure that was measured at it.

  A policy of Orbax.

  Attributes:
    figures: step -> figures of its held-out evaluation.
  """

  def __init__(self, keep: int, best: str = ''):
    """Nothing is known yet.

    Args:
      keep: how many of the newest.
      best: name of a figure, the lowest is the best; with '-' in front of it
        the highest. '' for none.
    """
    self._keep = keep
    self._name = best.removeprefix('-')
    self._sign = -1.0 if best.startswith('-') else 1.0
    self.figures: dict[int, Mapping[str, Any]] = {}

  def read(self, folder: pathlib.Path, steps: Iterable[int]) -> None:
    """Takes the figures of checkpoints on disk; damaged ones have none."""
    self.figures = {}
    for step in steps:
      try:
        self.figures[step] = read_meta(folder / str(step))['figures']
      except (ValueError, OSError):
        continue

  def best(self, steps: Iterable[int]) -> int | None:
    """The best of some steps, None where none of them was measured."""
    values = {s: self._value(self.figures.get(s, {})) for s in steps}
    measured = [s for s, v in values.items() if v is not None]
    return min(measured, key=lambda s: (values[s], s), default=None)

  def improves(self, figures: Mapping[str, Any], steps: Iterable[int]) -> bool:
    """Whether figures are better than those of all of some steps."""
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
    return [step in wanted for step in steps]
