"""Line, bar and dot charts with matplotlib, without its global state.

Charts have a transparent background, and their text is readable on a light and
on a dark page. The same values give the same SVG, byte for byte.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
  FuncFormatter,
  LogLocator,
  MaxNLocator,
  NullLocator,
)

from arvision.data import files

Points = Sequence[tuple[float, float]]

_PALETTE = ('#2f78c4', '#d9702b', '#3a9b63', '#a05cbc', '#b8912b', '#c4495a')
_INK, _RULE = '#5b6770', '#d5dade'
# In a dark page, instead of the two above.
_DARK_INK, _DARK_RULE = '#a9b4be', '#39424c'
# Ends of the colour scale for more curves than the palette has.
_FIRST, _LAST = (147, 190, 230), (24, 74, 140)
# Most names in a legend; of more curves, some are named. Most points of a curve.
_NAMED, _POINTS = 6, 240
_STEPS = (1, 2, 2.5, 5, 10)  # of ticks
_LARGEST = 1e100
_RAISED = str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹')
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 10, 40
_STYLE = {
  'axes.edgecolor': _RULE,
  'axes.facecolor': 'none',
  'axes.grid.axis': 'y',
  'axes.grid': True,
  'axes.labelcolor': _INK,
  'axes.linewidth': 0.8,
  'axes.spines.left': False,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'figure.facecolor': 'none',
  'font.family': 'sans-serif',
  'font.sans-serif': ['DejaVu Sans'],
  'font.size': 8.25,  # 11 px
  'grid.color': _RULE,
  'grid.linewidth': 0.8,
  'legend.labelcolor': _INK,
  'lines.linewidth': 1.4,
  'savefig.facecolor': 'none',
  'svg.fonttype': 'none',
  'svg.hashsalt': 'arvision',
  'text.color': _INK,
  'text.parse_math': False,  # names may contain $
  'xtick.color': _RULE,
  'xtick.labelcolor': _INK,
  'ytick.color': _RULE,
  'ytick.labelcolor': _INK,
  'ytick.major.size': 0,
  'ytick.minor.size': 0,
}


def lines(
  series: Mapping[str, Points],
  x: str,
  y: str,
  errors: Mapping[str, Points] | None = None,
  size: tuple[int, int] = (400, 230),
  within: tuple[float, float] | None = None,
) -> Figure:
  """Curves, with a legend if there are several.

  The y axis is logarithmic if all values are positive and span more than two
  decades. Curves without error bars are averaged down to 240 points.

  Args:
    series: name -> (x, y) pairs. Pairs that are not finite or beyond 1e100 are
      left out.
    x, y: labels of the axes.
    errors: name -> (low, high) ends of the error bar of every point, such as a
      confidence interval; names without error bars are left out.
    size: width and height in px.
    within: ends of the y axis; None for those of the values.
  """
  errors = errors or {}
  drawn = {
    name: finite(points) if name in errors else _thin(finite(points))
    for name, points in series.items()
  }
  drawn = {name: points for name, points in drawn.items() if points}
  reach = [point for points in drawn.values() for point in points]
  with style():
    named = _named(list(drawn))
    rows, columns = _legend_shape(named, size[0])
    figure, axes = _figure(size, top=_TOP + 17 * rows)
    for (name, points), colour in zip(drawn.items(), colours(len(drawn))):
      label = _short(name) if name in named else '_'
      across, up = zip(*points)
      axes.plot(across, up, color=colour, label=label)
      axes.plot(across[-1:], up[-1:], 'o', color=colour, markersize=3)
      if name in errors:
        ends = _ends(series[name], errors[name])
        axes.vlines(across, *zip(*ends), color=colour, linewidth=1)
        reach += [(across[0], end) for pair in ends for end in pair]
        axes.plot(across, up, 'o', color=colour, markersize=3)
    _scale(axes, reach, within)
    axes.set_xlabel(x, loc='right')
    axes.set_ylabel(y)
    if rows:
      _legend(figure, columns)
  return figure


def power_laws(
  points: Mapping[str, Points],
  laws: Mapping[str, Callable[[float], float]],
  x: str,
  y: str,
  ahead: Mapping[str, Points] | None = None,
  size: tuple[int, int] = (400, 260),
) -> Figure:
  """Points and their power laws on two logarithmic axes.

  Args:
    points: name -> positive (x, y) pairs.
    laws: name -> the law, drawn as a dashed line.
    x, y: labels of the axes.
    ahead: name -> points that the law was not fitted to, drawn hollow.
    size: width and height in px.
  """
  ahead = ahead or {}
  with style():
    rows, columns = _legend_shape(list(points), size[0])
    figure, axes = _figure(size, top=_TOP + 17 * rows)
    for (name, found), colour in zip(points.items(), colours(len(points))):
      axes.plot(*zip(*found), 'o', color=colour, markersize=4, label=name)
      later = ahead.get(name, ())
      if later:
        look = {'color': colour, 'markersize': 5, 'markerfacecolor': 'none'}
        axes.plot(*zip(*later), 'o', **look)
      ends = [v for v, _ in [*found, *later]]
      along = [min(ends), max(ends)]
      axes.plot(
        along, [laws[name](v) for v in along], '--', color=colour, linewidth=1
      )
    axes.set_xscale('log')
    axes.set_yscale('log')
    axes.xaxis.set_major_formatter(FuncFormatter(_power_text))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain_text))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(x, loc='right')
    axes.set_ylabel(y)
    _legend(figure, columns)
  return figure


def bars(
  shares: Mapping[str, float],
  limits: Mapping[str, float] | None = None,
  width: int = 400,
) -> Figure:
  """Horizontal bars of shares in [0, 1], with their values.

  Args:
    shares: name -> share.
    limits: name -> largest possible share, marked on the bar.
    width: in px.
  """
  places = range(len(shares))
  with style():
    figure, axes = _figure(
      (width, 24 * len(shares) + 8), left=72, right=60, top=4, bottom=4
    )
    axes.barh(places, [1.0] * len(shares), 0.6, color=_RULE)
    found = [min(max(share, 0.0), 1.0) for share in shares.values()]
    axes.barh(places, found, 0.6, color=_PALETTE[0])
    for i, (name, share) in enumerate(shares.items()):
      axes.text(1.015, i, f'{100 * share:.1f} %', va='center')
      limit = (limits or {}).get(name, 1.0)
      if limit < 1:
        axes.vlines(limit, i - 0.42, i + 0.42, color=_PALETTE[1], linewidth=1.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    _names_on_y(axes, list(shares))
    axes.grid(False)
    axes.spines[:].set_visible(False)
  return figure


def dots(
  values: Mapping[str, Sequence[float]], label: str, width: int = 400
) -> Figure:
  """A row of dots for every name, with their mean and standard deviation.

  Args:
    values: name -> numbers, one or more.
    label: label of the x axis.
    width: in px.
  """
  with style():
    figure, axes = _figure(
      (width, 26 * len(values) + _TOP + _BOTTOM), left=116, right=18
    )
    for i, found in enumerate(values.values()):
      axes.axhline(i, color=_RULE, linewidth=0.8, zorder=0)
      mean, spread = mean_and_spread(found)
      axes.plot(found, [i] * len(found), 'o', color=_PALETTE[0], alpha=0.65)
      axes.vlines(mean, i - 0.3, i + 0.3, color=_PALETTE[1], linewidth=1.5)
      axes.hlines(i, mean - spread, mean + spread, color=_PALETTE[1])
    axes.set_xlabel(label, loc='right')
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    _names_on_y(axes, list(values))
    axes.grid(False)
  return figure


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
  """Mean and standard deviation (n - 1 degrees of freedom; 0 for n = 1)."""
  mean = sum(values) / len(values)
  if len(values) < 2:
    return mean, 0.0
  squares = sum((v - mean) ** 2 for v in values)
  return mean, math.sqrt(squares / (len(values) - 1))


def svg(figure: Figure) -> str:
  """A chart as an <svg> element, or the content of an SVG file."""
  buffer = io.StringIO()
  empty = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
  with style(), warnings.catch_warnings():
    # The reader's fonts show the text, and may have more glyphs.
    warnings.filterwarnings('ignore', 'Glyph')
    figure.savefig(buffer, format='svg', metadata=empty)
  text = buffer.getvalue()
  head, rest = text[text.index('<svg') :].split('>', 1)
  dark = ''.join(
    f'[style*="{kind}: {light}"]{{{kind}:{there}!important}}'
    for kind in ('fill', 'stroke')
    for light, there in ((_INK, _DARK_INK), (_RULE, _DARK_RULE))
  )
  look = f'<style>@media (prefers-color-scheme: dark){{{dark}}}</style>'
  return f'{head}>{look}{rest}'


def finite(points: Points) -> list[tuple[float, float]]:
  """The points of a curve that can be drawn."""
  return [
    # Axes cannot represent the distances of smaller numbers.
    (x, y if abs(y) > 1 / _LARGEST else 0.0)
    for x, y in points
    if abs(x) < _LARGEST and abs(y) < _LARGEST
  ]


def colours(count: int) -> list[str]:
  """Colours of curves: the palette for a few, shades of blue for many."""
  if count <= len(_PALETTE):
    return list(_PALETTE[:count])
  shares = [i / (count - 1) for i in range(count)]
  mix = lambda a, b, t: round(a + (b - a) * t)
  return [
    '#' + ''.join(f'{mix(a, b, t):02x}' for a, b in zip(_FIRST, _LAST))
    for t in shares
  ]


def _ends(points: Points, errors: Points) -> list[tuple[float, float]]:
  """The error bars of the points that are drawn; none where not finite."""
  result = []
  for (x, y), (low, high) in zip(points, errors):
    if finite([(x, y)]):
      whole = len(finite([(x, low), (x, high)])) == 2
      result.append((low, high) if whole else (y, y))
  return result


@contextlib.contextmanager
def style() -> Iterator[None]:
  """The style of all charts, whatever the user's matplotlibrc says."""
  with matplotlib.style.context(['default', _STYLE]):
    yield


def _figure(size, left=_LEFT, right=_RIGHT, top=_TOP, bottom=_BOTTOM):
  """A figure and its axes, with margins in px."""
  width, height = size
  figure = Figure(figsize=(width / 96, height / 96))
  place = (
    left / width,
    bottom / height,
    (width - left - right) / width,
    (height - top - bottom) / height,
  )
  return figure, figure.add_axes(place)


def _legend(figure: Figure, columns: int) -> None:
  handles, labels = figure.axes[0].get_legend_handles_labels()
  # matplotlib fills columns first.
  order = [i for c in range(columns) for i in range(c, len(labels), columns)]
  figure.legend(
    [handles[i] for i in order],
    [labels[i] for i in order],
    loc='upper left',
    bbox_to_anchor=(0.02, 1.0),
    ncols=columns,
    frameon=False,
    borderaxespad=0.2,
    handlelength=1.2,
    columnspacing=1.4,
  )


def _scale(axes: Axes, points, within=None) -> None:
  """Limits, scales and ticks for (x, y) points."""
  across = [x for x, _ in points] or [0.0]
  up = within or [y for _, y in points] or [0.0]
  axes.set_xlim(_limits(min(across), max(across), 0.02))
  axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
  axes.xaxis.set_major_formatter(FuncFormatter(_step_text))
  if not within and min(up) > 0 and max(up) / min(up) > 100:
    axes.set_yscale('log')
    axes.yaxis.set_major_formatter(FuncFormatter(_plain_text))
    axes.yaxis.set_minor_locator(NullLocator())  # drawing those is slow
  else:
    axes.set_ylim(_limits(min(up), max(up), 0.06))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))


def _limits(low, high, margin):
  # Between closer ends, float64 cannot represent the ticks.
  if high - low <= 1e-9 * max(abs(low), abs(high), 1e-90):
    pad = abs(low) * 0.5 or 0.5
  else:
    pad = margin * (high - low)
  return low - pad, high + pad


def _step_text(value, _):
  return f'{value / 1000:g}k' if abs(value) >= 10_000 else f'{value:g}'


def _plain_text(value, _):
  return f'{value:g}'


def _power_text(value, _):
  """1e5 -> '10⁵'."""
  return f'10{str(round(math.log10(value))).translate(_RAISED)}'


def _names_on_y(axes: Axes, names: Sequence[str]) -> None:
  """One row for every name, the first on top."""
  axes.set_yticks(range(len(names)), [_short(name, 18) for name in names])
  axes.set_ylim(len(names) - 0.5, -0.5)


def _named(names):
  """The names that a legend shows: all of a few, evenly chosen of many."""
  if len(names) <= len(_PALETTE):
    return names if len(names) > 1 else []
  last = len(names) - 1
  return [names[round(i * last / (_NAMED - 1))] for i in range(_NAMED)]


def _legend_shape(names, width):
  """(rows, columns) of a legend."""
  if not names:
    return 0, 1
  room = 34 + 6.5 * max(len(_short(name)) for name in names)
  columns = min(len(names), max(1, int((width - 16) // room)))
  return -(-len(names) // columns), columns


def _short(name, most=40):
  """A name as one printable line that is not too long."""
  # matplotlib hides names that begin with an underscore.
  text = files.shown(f' {name}' if name.startswith('_') else name)
  return text if len(text) <= most else f'{text[: most - 1]}…'


def _thin(points):
  """Averages neighbours; the last point stays."""
  if len(points) <= _POINTS:
    return points
  size = math.ceil(len(points) / _POINTS)
  groups = [points[i : i + size] for i in range(0, len(points) - 1, size)]
  mean = lambda column: sum(column) / len(column)
  thin = [tuple(mean(column) for column in zip(*group)) for group in groups]
  return [*thin, points[-1]]
