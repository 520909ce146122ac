"""Pictures of layouts: who sees whom, what predicts what, what is made when.

    figure(layout, sampler)

A picture has the order of the tokens, the mask, the passes of sampling, and below
them the readout: a line from every slot to the token that it predicts.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgb, to_rgba_array
from matplotlib.figure import Figure

from arvision.evals import plots
from arvision.layouts import masks
from arvision.layouts.base import Layout
from arvision.samplers.base import Filling, Sampler

# Kinds of cells and what they mean, in the order of a legend.
SEEN = {'own': 'sees its own entity', 'past': 'sees past entities'}
MADE = {
  'drawn': 'sampled at once',
  'noise5': 'denoised, darker: more noise',
  'masked': 'masked',
  'filled': 'masked, filled in this pass',
  'done': 'finished',
}
COLOURS = {
  'own': '#2f78c4',
  'past': '#a9cbee',
  'drawn': '#3a9b63',
  'masked': '#dcc8e6',
  'filled': '#a05cbc',
  'done': '#b9c1c8',
  **{f'noise{i}': '#d9702b' for i in range(1, 6)},
}
_EARLY, _LATE = to_rgb('#cfe3f7'), to_rgb('#12406f')
CONDITION = '#e9c46a'  # of slots that carry it
_GREY, _RULE, _INK = '#5b6770', '#d5dade', '#1d2a35'
_BRANCHES = ('#2f78c4', '#d9702b')
_WIDTH, _SIDE, _LETTERS = 820, 220, 7.5
_NUMBERED = 40  # most slots or cells that have a number each
_LINED = 48  # most rows of a matrix with lines between its cells
_LINES: dict[str, Any] = {'color': 'white', 'linewidth': 0.5}


def seen(layout: Layout) -> np.ndarray:
  """(n, n) kind of what a slot, a row, sees of another one; '' for nothing."""
  own = layout.group[:, None] == layout.group
  kinds = np.where(own, 'own', 'past')
  return np.where(masks.dense(layout), kinds, '')


def made(layout: Layout, sampler: Sampler) -> np.ndarray:
  """(t, passes) kind of a token in every pass of the network in sampling.

  Args:
    layout: that of the model; the sampler may have another.
    sampler: of the same config.
  """
  layout = sampler.layout or layout
  columns: list[np.ndarray] = []
  done = np.full(layout.tokens, '', '<U6')
  for s in range(layout.steps):
    tokens = np.flatnonzero(layout.entity_of_token == s)
    for kinds in _passes(sampler, s, layout.steps, len(tokens)):
      columns.append(done.copy())
      columns[-1][tokens] = kinds
    done[tokens] = 'done'
  return np.stack(columns, 1)


def _passes(sampler: Any, s, steps, count) -> Iterator[np.ndarray]:
  """The kinds (count,) of the tokens of entity s, pass by pass.

  Which tokens stay masked depends on the seed, or on the network.
  """
  order = np.random.RandomState(s).permutation(count)
  plan = sampler.plan(s, steps)
  if sampler.refines:
    for level in sampler.solver.levels(plan)[:-1]:
      yield np.full(count, f'noise{max(1, round(5 * float(level)))}')
    return
  if isinstance(sampler, Filling):
    # MaskGIT's has a row for every number of masked tokens.
    counts = np.atleast_2d(sampler.counts(count))[-1].tolist()
  else:
    yield np.full(count, 'drawn')
    counts = [*(plan or ()), 0]
  for now, later in zip(counts, counts[1:]):
    kinds = np.full(count, 'done', '<U6')
    kinds[order[:now]], kinds[order[:later]] = 'filled', 'masked'
    yield kinds


def colours(kinds: np.ndarray) -> np.ndarray:
  """Kinds of cells -> colours, as `#rrggbb`; nothing is white, as its page."""
  found = {'': '#ffffff'}
  for kind, colour in COLOURS.items():
    # Less noise is lighter.
    share = int(kind[-1]) / 5 if kind.startswith('noise') else 1.0
    red, green, blue = (1 - share * (1 - c) for c in to_rgb(colour))
    found[kind] = to_hex((red, green, blue))
  return np.vectorize(found.__getitem__, otypes=[str])(kinds)


def figure(layout: Layout, sampler: Sampler | None = None) -> Figure:
  """Order, mask, passes and readout of a layout.

  Numbers are left out where there are too many slots.

  Args:
    layout: the layout.
    sampler: what samples with it, for the passes; None: without them.
  """
  below, height = 164, 26 + _SIDE + 164
  with plots.style():
    whole = Figure(figsize=(_WIDTH / 96, height / 96))
    place = lambda x, y, w, h: whole.add_axes(
      (x / _WIDTH, y / height, w / _WIDTH, h / height)
    )
    _order(place(10, below, _SIDE, _SIDE), layout)
    _cells(
      place(296, below, _SIDE, _SIDE),
      seen(layout),
      ('mask', 'keys', 'queries'),
    )
    if sampler is not None:
      _cells(
        place(570, below, _SIDE, _SIDE),
        made(layout, sampler),
        ('sampling', 'passes of the network', 'tokens'),
      )
    _readout(place(10, 6, _WIDTH - 20, 112), layout)
  return whole


def legend() -> Figure:
  """What the colours of `figure` mean."""
  entries = {
    'carries the condition': CONDITION,
    **{text: COLOURS[kind] for kind, text in (SEEN | MADE).items()},
  }
  with plots.style():
    found = Figure(figsize=(_WIDTH / 96, 48 / 96))
    axes = found.add_axes((0, 0, 1, 1))
    _bare(axes, _WIDTH, 48)
    x, y = 10.0, 8
    boxes: list[tuple] = []
    for text, colour in entries.items():
      room = 34 + 5.4 * len(text)
      if x + room > _WIDTH:
        x, y = 10.0, 28
      boxes.append((x, y, 10, 10, colour, 'none'))
      axes.text(x + 15, y + 5, text, va='center', fontsize=_LETTERS)
      x += room
    _fill(axes, boxes)
  return found


def _order(axes: Axes, layout):
  """The grids of tokens, every cell with the step that predicts it."""
  steps, start, x = layout.entity_of_token, 0, 0.0
  small = layout.tokens <= 2 * _NUMBERED
  places = []
  for height, width in layout.grids:
    places.append((x, height, width))
    x += width + 0.6
  across = x - 0.6
  up = max(height for height, _ in layout.grids)
  side = max(across, up)
  boxes: list[tuple] = []
  for x, height, width in places:
    for i, step in enumerate(steps[start : start + height * width].tolist()):
      row, column = divmod(i, width)
      colour = shade(step, layout.steps)
      boxes.append((x + column, row, 1, 1, colour, 'white'))
      if small and side <= 16:
        axes.text(
          x + column + 0.5,
          row + 0.5,
          str(step),
          ha='center',
          va='center',
          color=ink_on(colour),
          fontsize=min(11, 90 / side),
        )
    start += height * width
  _fill(axes, boxes, min(1, 10 / side))
  _bare(axes, side, side)
  axes.set_ylim(up, up - side)
  text = f'order: {layout.steps} step{"s" * (layout.steps > 1)}'
  axes.set_title(text, loc='left', **_heading())
  axes.set_anchor('SW')


def _cells(axes: Axes, kinds, names):
  """A matrix of kinds, with its title and the names of its axes."""
  title, below, left = names
  picture = to_rgba_array(colours(kinds).ravel()).reshape(*kinds.shape, 4)
  axes.imshow(picture, aspect='auto', interpolation='nearest')
  rows, columns = kinds.shape
  axes.set_xticks([])
  axes.set_yticks([])
  axes.grid(False)
  # Lines between cells, where there is room for them.
  if rows <= _LINED:
    axes.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, **_LINES)
    axes.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, **_LINES)
  axes.set_xlim(-0.5, columns - 0.5)
  axes.set_ylim(rows - 0.5, -0.5)
  axes.spines[:].set_visible(True)
  axes.spines[:].set_color(_RULE)
  axes.set_xlabel(below, fontsize=_LETTERS, labelpad=3)
  axes.set_ylabel(left, fontsize=_LETTERS, labelpad=3)
  text = f'{title}: {rows} × {columns}'
  axes.set_title(text, loc='left', **_heading())


def _readout(axes: Axes, layout):
  """Slots above, tokens in their order below, and who predicts whom."""
  count = max(layout.slots, layout.tokens)
  _bare(axes, count, 4)
  axes.set_title(
    'readout: what a slot carries, above, and the token that is read from it',
    loc='left',
    **_heading(),
  )
  numbered = count <= _NUMBERED
  left = [(count - layout.slots) / 2, (count - layout.tokens) / 2]
  if layout.slots == layout.prefix + layout.tokens:
    left[1] = left[0] + layout.prefix  # tokens below their own slots
  boxes: list[tuple] = []
  for i in range(layout.slots):
    token = int(layout.token[i])
    condition = i < layout.prefix or token < 0
    colour = shade(int(layout.entity[i]), layout.steps)
    colour = CONDITION if condition else colour
    edge = _BRANCHES[1] if layout.stream[i] else 'white'
    boxes.append((left[0] + i + 0.06, 0.2, 0.88, 0.9, colour, edge))
    if numbered:
      text = 'c' if condition else str(token)
      _label(axes, left[0] + i + 0.5, 0.65, text, colour, count)
  lines: list[list] = [[] for _ in range(layout.branches)]
  for place, token in enumerate(layout.order.tolist()):
    colour = shade(int(layout.entity_of_token[token]), layout.steps)
    x = left[1] + place
    boxes.append((x + 0.06, 2.9, 0.88, 0.9, colour, 'white'))
    if numbered:
      _label(axes, x + 0.5, 3.35, str(token), colour, count)
    for branch, slot in enumerate(layout.readout[token].tolist()):
      if slot >= 0:
        ends = [(left[0] + slot + 0.5, 1.15), (x + 0.5, 2.85)]
        lines[branch].append(ends)
  _fill(axes, boxes, 1.0 if numbered else 0.0)
  width = 0.9 if numbered else 0.3
  for found, colour in zip(lines, _BRANCHES):
    axes.add_collection(
      LineCollection(found, colors=colour, linewidths=width, alpha=0.8)
    )


def _label(axes, x, y, text, colour, count):
  size = min(8.0, 300 / max(count, 12))
  axes.text(
    x, y, text, ha='center', va='center', color=ink_on(colour), fontsize=size
  )


def _heading():
  return {'fontsize': 8.5, 'color': _GREY, 'pad': 4}


def _bare(axes: Axes, width, height):
  """Axes without marks, y downwards."""
  axes.set_xlim(0, width)
  axes.set_ylim(height, 0)
  axes.set_xticks([])
  axes.set_yticks([])
  axes.grid(False)
  axes.spines[:].set_visible(False)


def _fill(axes: Axes, boxes, width=1.0):
  """Draws (x, y, width, height, colour, colour of the edge) of every box."""
  corners = [
    [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    for x, y, w, h, _, _ in boxes
  ]
  axes.add_collection(
    PolyCollection(
      corners,
      facecolors=[box[4] for box in boxes],
      edgecolors=[box[5] for box in boxes],
      linewidths=width,
    )
  )


def shade(step, steps):
  """The colour of a step: early ones are light; grey before the first."""
  if step < 0:
    return to_rgb(_RULE)
  share = step / max(1, steps - 1)
  return tuple(a + (b - a) * share for a, b in zip(_EARLY, _LATE))


def ink_on(colour):
  """A colour that is readable on another one."""
  red, green, blue = to_rgb(colour)
  return _INK if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else 'white'
