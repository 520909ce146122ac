"""Loss spikes: losses and gradient norms far above their recent course.

A value is a spike if it exceeds the median of the last `config.spikes.window` steps
by `config.spikes.factor` standard deviations, estimated from the median absolute
deviation: neither is moved by the spike itself. A few per cent of the median
count as deviation in any case, so that a flat course has no spikes. A run that has
a spike goes on.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

_FACTOR, _WINDOW = 10.0, 100
# Standard deviations of a normal law in its median absolute deviation, and the
# least deviation as a share of the median.
_SCALE, _LEAST = 1.4826, 0.02


class Spike(NamedTuple):
  """A value far above the recent ones.

  Attributes:
    metric: name of the metric.
    value: its value.
    usual: the median of the steps before.
    deviation: their standard deviation, by the median absolute deviation.
  """

  metric: str
  value: float
  usual: float
  deviation: float

  def text(self) -> str:
    """'gradient_norm 45.2, usually 2.1 (± 0.31)'."""
    return (
      f'{self.metric} {self.value:.4g}, usually {self.usual:.4g} '
      f'(± {self.deviation:.2g})'
    )


class Spikes:
  """Finds spikes, step after step. A value that stays high counts once."""

  def __init__(self, config: ConfigDict):
    """Takes the config; older ones have no such block."""
    block = config.get('spikes') or {}
    self._factor = block.get('factor', _FACTOR)
    self._window = block.get('window', _WINDOW)
    self._recent: dict[str, list[float]] = {}
    self._high: set[str] = set()

  def __call__(self, values: Mapping[str, float]) -> list[Spike]:
    """The spikes among the metrics of a step, all of them finite."""
    found = []
    for name, value in values.items():
      if not self._factor or not _watched(name):
        continue
      recent = self._recent.setdefault(name, [])
      high = False
      if len(recent) >= max(2, self._window // 2):
        spike = _spike(name, value, recent)
        high = value > spike.usual + self._factor * spike.deviation
        if high and name not in self._high:
          found.append(spike)
      (self._high.add if high else self._high.discard)(name)
      recent.append(value)
      del recent[: -self._window]
    return found

  def get_state(self) -> dict[str, Any]:
    """JSON values."""
    return {'recent': self._recent, 'high': sorted(self._high)}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Restores the result of `get_state`."""
    recent = {k: [float(v) for v in x] for k, x in state['recent'].items()}
    self._recent, self._high = recent, set(state['high'])


def last_batch(state: Mapping[str, Any]) -> dict[str, Any]:
  """The batch that an iterator returned last.

  Args:
    state: state of a `data.stream.TrainIterator`, or of another iterator.

  Returns:
    'batch': its number, from 0; 'examples': the first and the last position of
    its examples in the stream, over all processes. {} for other iterators.
  """
  if not state.get('next_batch') or 'batch_size' not in state:
    return {}
  points = state.get('changes') or [(0, 0)]
  first, examples = points[-1]
  end = examples + (state['next_batch'] - first) * state['batch_size']
  return {
    'batch': state['next_batch'] - 1,
    'examples': [end - state['batch_size'], end - 1],
  }


def _watched(name):
  return name == 'loss' or name.partition('/')[0] == 'gradient_norm'


def _spike(name: str, value: float, recent: Sequence[float]) -> Spike:
  usual = statistics.median(recent)
  spread = statistics.median(abs(x - usual) for x in recent)
  deviation = max(_SCALE * spread, _LEAST * abs(usual))
  return Spike(name, value, usual, deviation)
