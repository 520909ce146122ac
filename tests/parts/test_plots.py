"""Charts: what they draw, and that equal values give equal files."""

import math
import re
import warnings
from xml.etree import ElementTree

import pytest

from arvision.evals import plots


def drawn(figure):
  """The SVG of a figure, which must be sound XML."""
  with warnings.catch_warnings():
    warnings.simplefilter('error', RuntimeWarning)
    text = plots.svg(figure)
  ElementTree.fromstring(text)
  return text


def test_lines_draw_finite_points_and_keep_the_end():
  points = [(float(i), math.sin(i)) for i in range(5000)]
  figure = plots.lines({'a': [*points, (5000.0, math.nan)]}, 'step', 'loss')
  [axes] = figure.axes
  across, up = axes.lines[0].get_data()
  assert 200 <= len(across) <= 260 and all(map(math.isfinite, up))
  assert (across[-1], up[-1]) == points[-1]
  assert axes.get_yscale() == 'linear' and not figure.legends
  assert (axes.get_xlabel(), axes.get_ylabel()) == ('step', 'loss')


def test_two_decades_make_a_logarithmic_axis():
  [axes] = plots.lines({'a': [(0, 1.0), (1, 1e4)]}, 'x', 'y').axes
  assert axes.get_yscale() == 'log'


@pytest.mark.parametrize(
  'values',
  [(), (2.0,), (0, 5e-324), (1.0, 1.0 + 1e-16), (-1e99, 1e99), (1e-99, 1e99)],
)
def test_axes_of_odd_lengths(values):
  assert '<svg' in drawn(plots.lines({'a': list(enumerate(values))}, 'x', 'y'))


def test_error_bars_stay_with_their_points():
  points = [(1.0, 4.0), (2.0, math.nan), (3.0, 5.0)]
  ends = {'a': [(3.5, 4.25), (0.0, 0.0), (4.0, 7.0)]}
  [axes] = plots.lines({'a': points, 'b': points}, 'x', 'y', ends).axes
  [bars] = axes.collections
  shown = [[tuple(p) for p in s] for s in bars.get_segments()]
  assert shown == [[(1.0, 3.5), (1.0, 4.25)], [(3.0, 4.0), (3.0, 7.0)]]


def test_many_curves_get_shades_in_order_and_some_names():
  assert len(set(plots.colours(10))) == 10
  assert len(set(plots.colours(4))) == 4
  series = {f'step {i}': [(0.0, i), (1.0, i + 1)] for i in range(20)}
  [legend] = plots.lines(series, 'x', 'y').legends
  names = [text.get_text() for text in legend.get_texts()]
  # Rows of four, handed over by column.
  assert names == [f'step {i}' for i in (0, 15, 4, 19, 8, 11)]


def test_names_are_shown_as_they_are():
  names = ['_a', r'$\frac$', '<&"', '\x00\x1b', '\udcff', 'x' * 99, '猫']
  series = {name: [(0.0, 1.0)] for name in names[:4]}
  text = drawn(plots.lines(series, '<x>', '$y$'))
  assert r'$\frac$' in text and '&lt;x&gt;' in text
  drawn(plots.dots({name: [1.0, 2.0] for name in names}, 'y'))
  drawn(plots.bars(dict.fromkeys(names, 0.5)))


def test_equal_values_give_equal_files_and_two_colour_schemes():
  text = drawn(plots.bars({'1x1': 0.375}, {'1x1': 0.5}))
  assert text == plots.svg(plots.bars({'1x1': 0.375}, {'1x1': 0.5}))
  assert '37.5 %' in text and 'prefers-color-scheme: dark' in text
  assert not re.search(r'\d{4}-\d\d-\d\d', text)


def test_spread_is_the_standard_deviation_of_a_sample():
  assert plots.mean_and_spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
  assert plots.mean_and_spread([4.0]) == (4.0, 0.0)


def test_power_laws_are_lines_on_logarithmic_axes():
  law = lambda x: 4 * x**-0.5
  points = [(10.0, law(10.0)), (100.0, law(100.0))]
  figure = plots.power_laws(
    {'VAR': points}, {'VAR': law}, 'parameters', 'loss', {'VAR': [(1e4, 0.04)]}
  )
  [axes] = figure.axes
  assert (axes.get_xscale(), axes.get_yscale()) == ('log', 'log')
  fitted, later, line = (list(zip(*x.get_data())) for x in axes.lines)
  assert fitted == points and later == [(1e4, 0.04)]
  assert line == [(10.0, law(10.0)), (1e4, law(1e4))]
  assert 'VAR' in drawn(figure)
