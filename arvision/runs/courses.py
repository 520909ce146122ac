"""The course of a training: what of its curves to show, and what it tells."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from arvision.evals import plots
from arvision.runs import page, readings

# Curves with fewer points are shown whole.
_FEW = 20
# Shares of the points of a curve that may lie below and above the axis.
_BELOW, _ABOVE = 0.02, 0.05
# The axis is cut where the values span so many times as much.
_FLAT = 2.0
# Charts with values that span more than this have a logarithmic axis.
_DECADES = 100
# A loss rises if it ends higher than its minimum by these shares of the minimum
# and of what it fell before.
_RISE, _OF_FALL = 0.005, 0.05
# Colour of the lines at spikes.
_MARK = '#c4495a'


def focus(
  series: Mapping[str, plots.Points],
) -> tuple[float, float] | None:
  """Ends of a y axis that a few extreme values do not flatten.

  They are percentiles of every curve, widened by a tenth: the first points of a
  loss, or a single spike, would else leave no room for all others.

  Args:
    series: name -> (x, y) pairs.

  Returns:
    None where one axis can show all values.
  """
  every: list[float] = []
  low, high = [], []
  for points in series.values():
    values = sorted(y for _, y in plots.finite(points))
    if not values:
      continue
    last = len(values) - 1
    cut = last if last + 1 >= _FEW else 0
    every += values
    low.append(values[round(_BELOW * cut)])
    high.append(values[last - round(_ABOVE * cut)])
  if not every:
    return None
  margin = 0.1 * (max(high) - min(low))
  ends = (
    max(min(every), min(low) - margin),
    min(max(every), max(high) + margin),
  )
  if 0 < ends[0] < ends[1] / _DECADES:  # for a logarithmic axis
    return None
  span = max(every) - min(every)
  return ends if margin and span > _FLAT * (ends[1] - ends[0]) else None


def cut_text(
  series: Mapping[str, plots.Points], ends: tuple[float, float] | None
) -> str:
  """'6 of 200 points lie above the axis, up to 7.2'; '' if none does."""
  if ends is None:
    return ''
  values = [y for p in series.values() for _, y in plots.finite(p)]
  above = [y for y in values if y > ends[1]]
  below = [y for y in values if y < ends[0]]
  texts = []
  if above:
    texts.append(f'{len(above)} above it, up to {page.short(max(above))}')
  if below:
    texts.append(f'{len(below)} below it, down to {page.short(min(below))}')
  if not texts:
    return ''
  return f'cut axis: of {len(values)} points {" and ".join(texts)}'


def spike_rows(spikes: Sequence[Mapping]) -> list[dict]:
  """Step, metric, value, usual value and batch of events of loss spikes."""
  return [
    {
      'step': page.number(spike['step']),
      'metric': spike['metric'],
      'value': page.number(spike['value']),
      'usual': page.number(spike['usual']),
      'batch': spike.get('batch', '–'),
    }
    for spike in spikes
  ]


def mark(figure: Figure, steps: Sequence[float]) -> None:
  """Draws a dashed line at every step of a chart."""
  for step in steps:
    figure.axes[0].axvline(step, color=_MARK, linewidth=0.8, dashes=(3, 3))


def rise(log: Sequence[Mapping]) -> str:
  """A sentence about a held-out loss that rises again; '' if it does not.

  Args:
    log: lines of log.jsonl. The slowest average of the weights counts.
  """
  losses = readings.curves(log).get('loss', {})
  names = sorted(name for name in losses if name.startswith('held out'))
  points = plots.finite(losses[names[-1]]) if names else []
  if len(points) < 3:
    return ''
  step, least = min(points, key=lambda point: point[1])
  end, first = points[-1][1], points[0][1]
  more = end - least
  if more <= _RISE * abs(least) or more <= _OF_FALL * (first - least):
    return ''
  text = (
    f'The held-out loss was lowest after step {step:,.0f}, '
    f'{page.number(least)}, and ends at {page.number(end)}'
  )
  training = dict(plots.finite(losses.get('training', ())))
  there = [loss for at, loss in training.items() if at <= step]
  if there and [*training.values()][-1] < there[-1]:
    text += ' while the training loss falls: the run overfits'
  return (
    f'{text}. Train for fewer steps, or keep the best checkpoint with '
    '--config.checkpoint.best=held_out/loss.'
  )
