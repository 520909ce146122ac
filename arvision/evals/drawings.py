"""Drawings of boxes, cells, arrows and words, as SVG written by hand.

What takes coordinates in px, and no axes: charts are in `plots`. A drawing is on
white, on a dark page too. The same calls give the same SVG, byte for byte, whatever
version of matplotlib there is.
"""

import html
from collections.abc import Mapping, Sequence

import numpy as np

INK, PALE, FAINT = '#1d2a35', '#5b6770', '#a9b4be'
RULE, WHITE = '#d5dade', '#ffffff'
Point = tuple[float, float]
Side = float | tuple[float, float]


class Drawing:
  """An SVG in the making; what is drawn later lies above.

  Attributes:
    width, height: in px.
  """

  def __init__(self, width: int, height: int):
    self.width, self.height = width, height
    self._parts: list[str] = []

  def text(
    self,
    x: float,
    y: float,
    words: str,
    *,
    size: float = 16,
    colour: str = INK,
    anchor: str = 'middle',
    bold: bool = False,
    up: bool = False,
  ) -> None:
    """Words whose baseline is at y.

    Args:
      x, y: where they start, end, or have their middle.
      words: one line.
      size: of the letters, in px.
      colour: of the letters.
      anchor: 'start', 'middle' or 'end'.
      bold: whether they are bold.
      up: whether they read from below to above.
    """
    own = f' font-size="{size:g}" fill="{colour}" text-anchor="{anchor}"'
    own += ' font-weight="bold"' * bold
    own += f' transform="rotate(-90 {x:g} {y:g})"' * up
    words = html.escape(words, quote=False)
    self._parts.append(f'<text x="{x:g}" y="{y:g}"{own}>{words}</text>')

  def box(
    self,
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    edge: str = 'none',
    corner: float = 0,
  ) -> None:
    """A rectangle, with round corners if `corner` is their radius."""
    own = f' rx="{corner:g}"' if corner else ''
    self._parts.append(
      f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
      f'fill="{fill}" stroke="{edge}"{own}/>'
    )

  def line(
    self,
    points: Sequence[Point],
    colour: str = PALE,
    width: float = 1.5,
    head: bool = False,
  ) -> None:
    """Straight lines through points, with the head of an arrow at the last."""
    path = 'M' + 'L'.join(f'{x:g} {y:g}' for x, y in points)
    self._parts.append(
      f'<path d="{path}" fill="none" stroke="{colour}" '
      f'stroke-width="{width:g}"/>'
    )
    if head:
      (x0, y0), (x1, y1) = points[-2:]
      along = np.array([x1 - x0, y1 - y0]) / np.hypot(x1 - x0, y1 - y0)
      across = np.array([-along[1], along[0]])
      tip = np.array([x1, y1]) + 2 * along
      ends = [tip - 8 * along + side * across for side in (4, -4)]
      corners = 'L'.join(f'{x:.1f} {y:.1f}' for x, y in (tip, *ends))
      self._parts.append(f'<path d="M{corners}z" fill="{colour}"/>')

  def cells(self, x: float, y: float, side: Side, colours: np.ndarray) -> None:
    """A grid of cells.

    Args:
      x, y: its left upper corner.
      side: of a cell, or its width and height.
      colours: (rows, columns) fill of every cell, '' for none.
    """
    across, up = _pair(side)
    inside = ''.join(
      f'<path fill="{colour}" d="{path}"/>'
      for colour, path in cell_paths(colours).items()
    )
    self._parts.append(
      f'<g transform="translate({x:g} {y:g}) scale({across:.4g} {up:.4g})">'
      f'{inside}</g>'
    )

  def cuts(
    self,
    x: float,
    y: float,
    side: Side,
    shape: tuple[int, int],
    width: float = 1.5,
  ) -> None:
    """White lines between the cells of a grid.

    Args:
      x, y, side: see `cells`.
      shape: (rows, columns).
      width: of a line.
    """
    across, up = _pair(side)
    rows, columns = shape
    right, below = x + columns * across, y + rows * up
    down = (f'M{x + i * across:g} {y:g}V{below:g}' for i in range(1, columns))
    over = (f'M{x:g} {y + i * up:g}H{right:g}' for i in range(1, rows))
    self._parts.append(
      f'<path d="{"".join([*down, *over])}" stroke="{WHITE}" '
      f'stroke-width="{width:g}"/>'
    )

  def legend(self, x: float, y: float, entries: Mapping[str, str]) -> None:
    """Squares and what they mean, side by side; words stand on y.

    Args:
      x, y: where it starts.
      entries: colour -> words.
    """
    for colour, words in entries.items():
      self.box(x, y - 12, 14, 14, colour, RULE if colour == WHITE else 'none')
      self.text(x + 20, y, words, size=15, colour=PALE, anchor='start')
      x += 50 + 8.4 * len(words)

  def frame(self, x: float, y: float, width: float, height: float) -> None:
    """A thin line around something."""
    self.box(x, y, width, height, 'none', RULE)

  def svg(self, title: str) -> str:
    """The content of an SVG file.

    Args:
      title: what is seen, for those who do not see it.
    """
    size = f'{self.width} {self.height}'
    return (
      f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" '
      f'viewBox="0 0 {size}" font-family="DejaVu Sans, Verdana, sans-serif">\n'
      f'<title>{html.escape(title, quote=False)}</title>\n'
      f'<rect width="{self.width}" height="{self.height}" fill="{WHITE}"/>\n'
      + '\n'.join(self._parts)
      + '\n</svg>\n'
    )


def _pair(side: Side) -> tuple[float, float]:
  return side if isinstance(side, tuple) else (side, side)


def cell_paths(kinds: np.ndarray) -> dict[str, str]:
  """Kind of cell -> the path of all its cells of side 1, in the order of kinds.

  Neighbours in a row are one rectangle.

  Args:
    kinds: (rows, columns) str, '' for cells that are not drawn.
  """
  paths: dict[str, list[str]] = {}
  for i, line in enumerate(kinds):
    cuts = np.flatnonzero(line[1:] != line[:-1]) + 1
    for first, end in zip([0, *cuts], [*cuts, len(line)]):
      span = int(end - first)
      path = f'M{first} {i}h{span}v1h-{span}z'
      paths.setdefault(str(line[first]), []).append(path)
  return {kind: ''.join(paths[kind]) for kind in sorted(paths) if kind}
