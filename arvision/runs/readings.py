"""What logs and evaluations say: curves, speeds, metrics with protocols."""

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from arvision.runs import page

# Keys of a log line that get no curve.
_AXES = ('step', 'examples', 'epoch')
_WHERE = ('held_out', 'ema_')
# The least important charts, at the end.
_LAST = ('gradient norm', 'learning rate', 'weight decay', 'images per second')


def curves(log: Sequence[Mapping]) -> dict[str, dict[str, list]]:
  """Chart -> series -> (step, value) points, the most important charts first.

  The name of a metric is `[held_out/[ema_<decay>/]]figure[/part]`. Training and
  held-out values of a figure share a chart. Its parts (scales, steps, networks)
  share another chart, which only has training values.
  """
  charts: dict[str, dict[str, list]] = {}
  for line in log:
    for name, value in line.items():
      place = _place(name)
      if place is None:
        continue
      points = charts.setdefault(place[0], {}).setdefault(place[1], [])
      points.append((float(line['step']), float(value)))
  rank = lambda title: (
    title.startswith(_LAST),
    not title.startswith('loss'),
    title,
  )
  return {
    title: dict(sorted(charts[title].items(), key=lambda x: x[0] != 'training'))
    for title in sorted(charts, key=rank)
  }


def _place(name):
  """(chart, series) of the name of a metric; None for no curve."""
  parts = name.split('/')
  where = [p for p in parts if p.startswith(_WHERE)]
  figure, *part = [p.replace('_', ' ') for p in parts if p not in where]
  if name in _AXES or (where and part):
    return None
  if not part:
    return figure, ' '.join(where).replace('_', ' ') or 'training'
  series = ' '.join(part)
  kind = series.split(' ')[0] if ' ' in series else 'part'
  return f'{figure} by {kind}', series


def training_seconds(log: Sequence[Mapping]) -> float:
  """Seconds of all steps, from the examples and images/s of the log lines."""
  total, before = 0.0, 0.0
  for line in log:
    speed = line.get('images_per_second', 0.0)
    if speed > 0 and 'examples' in line:
      total += (line['examples'] - before) / speed
      before = line['examples']
  return total


def interval(
  name: str, metrics: Mapping[str, float], protocols: Mapping[str, Mapping]
) -> tuple[float, float] | None:
  """The ends of the interval that was measured for a metric, None without one.

  Args:
    name: name of the metric.
    metrics: name -> value.
    protocols: name -> `Protocol.facts()`.
  """
  ends = _ends(name, metrics, protocols)
  return (metrics[ends[0]], metrics[ends[1]]) if ends else None


def _ends(name, metrics, protocols):
  """The names of the ends of an interval: `<figure>_low`, `<figure>_high`."""
  figure, protocol = name.partition('/')[::2]
  facts = _without_method(protocols.get(protocol))
  found = [
    other
    for end in ('low', 'high')
    for other in metrics
    if other.partition('/')[0] == f'{figure}_{end}'
    if (there := other.partition('/')[2]) == protocol
    # The interval of a figure has its protocol, but for its own method.
    or (facts and facts == _without_method(protocols.get(there)))
  ]
  return found if len(found) == 2 else []


def _without_method(facts):
  return {k: v for k, v in (facts or {}).items() if k != 'method'}


def interval_text(
  name: str,
  metrics: Mapping[str, float],
  protocols: Mapping[str, Mapping],
  before: str = '',
) -> str:
  """`interval` as '2 to 3', after the text `before`; '' without one."""
  ends = interval(name, metrics, protocols)
  return before + ' to '.join(map(page.short, ends)) if ends else ''


def without_intervals(
  metrics: Mapping[str, float], protocols: Mapping[str, Mapping]
) -> dict[str, float]:
  """The metrics that are not the end of an interval of another one."""
  ends = {end for name in metrics for end in _ends(name, metrics, protocols)}
  return {name: value for name, value in metrics.items() if name not in ends}


def images_of(name: str, protocols: Mapping[str, Mapping]) -> int:
  """The number of images that a metric was measured on, 0 if unknown.

  Args:
    name: name of the metric, `<figure>/<protocol>`.
    protocols: name -> `Protocol.facts()`.
  """
  protocol = name.partition('/')[2]
  count = protocols.get(protocol, {}).get('images')
  if isinstance(count, int):
    return count
  # Classifiers name their protocols <extractor>-<data>-<size>-<images>.
  match = re.fullmatch(r'classifier-.*-([0-9]{1,9})', protocol)
  return int(match[1]) if match else 0


def metric_rows(
  metrics: Mapping[str, float], protocols: Mapping[str, Mapping]
) -> list[dict[str, Any]]:
  """Figure, protocol, scale, value and interval of every metric."""
  rows = []
  for name, value in without_intervals(metrics, protocols).items():
    figure, protocol, scale = [*name.split('/', 2), '', ''][:3]
    rows.append(
      {
        'figure': figure,
        'protocol': protocol,
        'scale': scale,
        'value': value,
        'interval': interval_text(name, metrics, protocols),
      }
    )
  return rows


def protocol_rows(
  protocols: Mapping[str, Mapping],
) -> dict[str, list[tuple[str, str]]]:
  """Name -> the facts of a protocol as rows of a table."""
  return {name: flat_rows(facts) for name, facts in protocols.items()}


def flat_rows(block: Mapping[str, Any]) -> list[tuple[str, str]]:
  """(key, value) as text of the fields of a block and of blocks inside it."""
  rows = []
  for name, value in block.items():
    inner = value if isinstance(value, dict) and value else {'': value}
    for key, item in inner.items():
      text = item if isinstance(item, str) else json.dumps(item)
      rows.append((f'{name}.{key}' if key else name, text or '–'))
  return rows


@dataclasses.dataclass(frozen=True)
class Speeds:
  """The speed of a training, by the lines of its log.

  Attributes:
    images: images/s of every line.
    steps: seconds per step of every line.
  """

  images: list[float]
  steps: list[float]

  @property
  def median(self) -> float:
    return statistics.median(self.images)


def speeds(log: Sequence[Mapping]) -> Speeds | None:
  """The speed of a training; None if its log has none."""
  found, steps = [], []
  before = (0.0, 0.0)
  for line in log:
    speed = line.get('images_per_second', 0.0)
    if not (0 < speed < math.inf and 'examples' in line):
      continue
    here = (line['step'], line['examples'])
    found.append(speed)
    if here[0] > before[0]:
      batch = (here[1] - before[1]) / (here[0] - before[0])
      steps.append(batch / speed)
    before = here
  return Speeds(found, steps) if found else None
