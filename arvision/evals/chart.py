"""Line, bar and dot charts as SVG text."""

import html
import math
from collections.abc import Mapping, Sequence

_PALETTE = ('#2563a8', '#d9702b', '#3a8f5c', '#8a4fa3', '#b8912b', '#5b6770')
# Ends of the colour scale for more curves than the palette has.
_LIGHT, _DARK = (158, 202, 225), (8, 48, 107)
_POINTS = 240
_LARGEST = 1e100
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 18, 10, 34


def colours(count: int) -> list[str]:
  """Colours of curves: the palette for a few, shades of blue for many."""
  if count <= len(_PALETTE):
    return list(_PALETTE[:count])
  shares = [i / (count - 1) for i in range(count)]
  mix = lambda a, b, t: round(a + (b - a) * t)
  return [
    '#' + ''.join(f'{mix(a, b, t):02x}' for a, b in zip(_LIGHT, _DARK))
    for t in shares
  ]


def line_chart(
  series: Mapping[str, Sequence[tuple[float, float]]],
  x_label: str = 'step',
  size: tuple[int, int] = (400, 210),
) -> str:
  """Curves over a common x axis.

  The y axis is logarithmic if all values are positive and span more than two
  decades. Long curves are averaged down to 240 points.

  Args:
    series: name -> (x, y) pairs. Pairs that are not finite or beyond 1e100 are
      left out.
    x_label: label of the x axis.
    size: width and height in px.

  Returns:
    an <svg> element; '' without any points.
  """
  lines = {name: _thin(_finite(pairs)) for name, pairs in series.items()}
  lines = {name: pairs for name, pairs in lines.items() if pairs}
  if not lines:
    return ''
  values = [y for pairs in lines.values() for _, y in pairs]
  places = [x for pairs in lines.values() for x, _ in pairs]
  logarithmic = min(values) > 0 and max(values) / min(values) > 100
  scale = math.log10 if logarithmic else float
  x_axis = _Axis(min(places), max(places), _LEFT, size[0] - _RIGHT)
  y_axis = _Axis(
    scale(min(values)), scale(max(values)), size[1] - _BOTTOM, _TOP, margin=0.05
  )
  parts = [_y_tick(t, y_axis, logarithmic, size) for t in y_axis.ticks(5)]
  parts += [_x_tick(t, x_axis, size) for t in x_axis.ticks(5)]
  parts.append(
    f'<text x="{size[0] - _RIGHT}" y="{size[1] - 4}" class="axis" '
    f'text-anchor="end">{html.escape(x_label)}</text>'
  )
  if logarithmic:
    parts.append(f'<text x="4" y="{size[1] - 4}" class="axis">log scale</text>')
  for (name, pairs), colour in zip(lines.items(), colours(len(lines))):
    points = [(x_axis(x), y_axis(scale(y))) for x, y in pairs]
    parts.append(_curve(points, colour, f'{name}: {number(pairs[-1][1])}'))
  return _svg(parts, size)


def legend(names: Sequence[str]) -> str:
  """The legend of a line chart, as HTML; '' for a single curve."""
  if len(names) < 2:
    return ''
  items = [
    f'<span class="key"><i style="background:{colour}"></i>'
    f'{html.escape(name)}</span>'
    for name, colour in zip(names, colours(len(names)))
  ]
  return f'<p class="legend">{"".join(items)}</p>'


def bar_chart(
  shares: Mapping[str, float],
  limits: Mapping[str, float] | None = None,
  width: int = 400,
) -> str:
  """Horizontal bars of shares in [0, 1], with their values.

  Args:
    shares: name -> share.
    limits: name -> largest possible share, marked on the bar.
    width: in px.
  """
  row, label, value = 24, 64, 62
  room = width - label - value
  parts = []
  for i, (name, share) in enumerate(shares.items()):
    y = i * row
    length = max(1.0, room * min(max(share, 0.0), 1.0))
    parts.append(
      f'<text x="{label - 8}" y="{y + 16}" class="axis" text-anchor="end">'
      f'{html.escape(name)}</text>'
      f'<rect x="{label}" y="{y + 4}" width="{room}" height="15" rx="3" '
      f'fill="#eceef1"/>'
      f'<rect x="{label}" y="{y + 4}" width="{length:.1f}" height="15" rx="3" '
      f'fill="{_PALETTE[0]}"/>'
      f'<text x="{width - value + 8}" y="{y + 16}" class="axis">'
      f'{100 * share:.1f} %</text>'
    )
    limit = (limits or {}).get(name, 1.0)
    if limit < 1:
      x = label + room * limit
      parts.append(
        f'<line x1="{x:.1f}" y1="{y + 2}" x2="{x:.1f}" y2="{y + 21}" '
        f'stroke="{_PALETTE[1]}" stroke-width="2"/>'
      )
  return _svg(parts, (width, max(1, len(shares)) * row))


def dot_chart(
  values: Mapping[str, Sequence[float]], label: str, width: int = 460
) -> str:
  """A row of dots for every name, with a line at their mean.

  Args:
    values: name -> numbers.
    label: label of the x axis.
    width: in px.
  """
  row, left = 26, 120
  height = len(values) * row + _BOTTOM
  every = [v for found in values.values() for v in found]
  axis = _Axis(min(every), max(every), left, width - _RIGHT, margin=0.05)
  size = (width, height)
  parts = [_x_tick(t, axis, size) for t in axis.ticks(5)]
  parts.append(
    f'<text x="{width - _RIGHT}" y="{height - 4}" class="axis" '
    f'text-anchor="end">{html.escape(label)}</text>'
  )
  for i, (name, found) in enumerate(values.items()):
    y = i * row + row / 2
    mean = axis(sum(found) / len(found))
    parts.append(
      f'<text x="{left - 10}" y="{y + 4}" class="axis" text-anchor="end">'
      f'{html.escape(name)}</text>'
      f'<line x1="{left}" y1="{y}" x2="{width - _RIGHT}" y2="{y}" '
      'class="rule"/>'
      f'<line x1="{mean:.1f}" y1="{y - 8}" x2="{mean:.1f}" y2="{y + 8}" '
      f'stroke="{_PALETTE[1]}" stroke-width="2"/>'
    )
    parts += [
      f'<circle cx="{axis(v):.1f}" cy="{y}" r="4" fill="{_PALETTE[0]}" '
      'fill-opacity="0.7"/>'
      for v in found
    ]
  return _svg(parts, size)


def styled(svg: str) -> str:
  """A chart with its style sheet, for a file of its own."""
  look = '.axis{font:10px sans-serif;fill:#555}.rule{stroke:#ddd}'
  return svg.replace('>', f'><style>{look}</style>', 1)


def number(value: float) -> str:
  """A number with 4 significant digits and no trailing zeros."""
  if not math.isfinite(value):
    return str(value)
  if value and (abs(value) >= 1e6 or abs(value) < 1e-4):
    return f'{value:.3g}'
  if abs(value) >= 1000 or value == int(value):
    return f'{value:,.0f}'
  text = f'{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}'
  return text.rstrip('0').rstrip('.')


class _Axis:
  """Maps values to px and chooses ticks at round numbers."""

  def __init__(self, low, high, start, end, margin=0.0):
    # Between closer ends, float64 cannot represent the ticks.
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-90):
      pad = abs(low) * 0.5 or 0.5
      low, high = low - pad, high + pad
    pad = margin * (high - low)
    self.low, self.high = low - pad, high + pad
    self.start, self.end = start, end

  def __call__(self, value):
    share = (value - self.low) / (self.high - self.low)
    return self.start + share * (self.end - self.start)

  def ticks(self, about):
    rough = (self.high - self.low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(self.low / step - 1e-9)
    last = math.floor(self.high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _x_tick(value, axis, size):
  x, y = axis(value), size[1] - _BOTTOM
  text = f'{value / 1000:g}k' if abs(value) >= 10_000 else f'{value:g}'
  return (
    f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 4}" class="rule"/>'
    f'<text x="{x:.1f}" y="{y + 16}" class="axis" text-anchor="middle">'
    f'{text}</text>'
  )


def _y_tick(value, axis, logarithmic, size):
  y = axis(value)
  text = number(10**value if logarithmic else value)
  return (
    f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{size[0] - _RIGHT}" y2="{y:.1f}" '
    f'class="rule"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" class="axis" '
    f'text-anchor="end">{text}</text>'
  )


def _curve(points, colour, title):
  path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
  x, y = points[-1]
  return (
    f'<g><title>{html.escape(title)}</title><polyline points="{path}" '
    f'fill="none" stroke="{colour}" stroke-width="1.8" '
    f'stroke-linejoin="round"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" '
    f'fill="{colour}"/></g>'
  )


def _svg(parts, size):
  width, height = size
  return (
    f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    f'xmlns="http://www.w3.org/2000/svg" role="img">{"".join(parts)}</svg>'
  )


def _finite(pairs):
  return [(x, y) for x, y in pairs if abs(x) < _LARGEST and abs(y) < _LARGEST]


def _thin(pairs):
  """Averages neighbours; the last point stays."""
  if len(pairs) <= _POINTS:
    return pairs
  size = math.ceil(len(pairs) / _POINTS)
  groups = [pairs[i : i + size] for i in range(0, len(pairs) - 1, size)]
  mean = lambda column: sum(column) / len(column)
  thin = [tuple(mean(column) for column in zip(*group)) for group in groups]
  return [*thin, pairs[-1]]
