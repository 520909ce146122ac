"""A comparison of runs as text for the console."""

from collections.abc import Sequence
from typing import Any

from arvision.runs.compare import Column, difference_text, spread_text
from arvision.runs.variants import Variant

# Most variants beside one another, keys of the config, and letters of a cell.
_VARIANTS, _KEYS, _LETTERS = 6, 20, 28


def render(found: Sequence[Variant], columns: Sequence[Column]) -> str:
  """Two tables: keys of the configs that differ, and figures.

  A figure has a line for every protocol that it was measured by.

  Args:
    found: the variants.
    columns: their metrics, see `compare.columns`.
  """
  shown = range(min(len(found), _VARIANTS))
  names = [found[i].name for i in shown]
  keys = [
    [key, *(_text(found[i].overrides.get(key)) for i in shown)]
    for key in found[0].overrides
  ]
  figures = [
    [
      f'{c.figure} {c.protocol}',
      *(_figure(c, i) for i in shown),
      f'{c.better} is better' if c.better else '',
    ]
    for c in columns
  ]
  lines = []
  if keys:
    lines += _aligned([['config', *names], *keys[:_KEYS]])
    if len(keys) > _KEYS:
      lines.append(f'... and {len(keys) - _KEYS} more keys, see the page')
  else:
    lines.append('the configs are the same, but for seeds')
  if figures:
    lines += ['', *_aligned([['figure, protocol', *names, ''], *figures])]
  else:
    lines += ['', 'no figures: run arvision eval on them']
  if len(found) > _VARIANTS:
    lines.append(f'... and {len(found) - _VARIANTS} more runs, see the page')
  return '\n'.join(lines)


def _figure(column: Column, i: int) -> str:
  if not column.values[i]:
    return '–'
  text = spread_text(*column.summary(i))
  difference = difference_text(column, i)
  return f'{text} ({difference})' if difference else text


def _text(value: Any) -> str:
  text = value if isinstance(value, str) else repr(value)
  return text if len(text) <= _LETTERS else f'…{text[1 - _LETTERS :]}'


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows)]
  return [
    '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    for row in rows
  ]
