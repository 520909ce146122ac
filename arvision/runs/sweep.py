"""Evaluations of one run with several settings of the sampler."""

import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from arvision.evals import plots
from arvision.evals.protocol import check_same_figures
from arvision.ranges import shown
from arvision.runs import readings, targets

# Distances, the first of which chooses the best setting and is plotted.
DISTANCES = ('fid', 'frechet')
Record = Mapping[str, Any]


def product(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
  """All settings of a sweep; those with the same first value in a row."""
  for chosen in itertools.product(*values.values()):
    yield dict(zip(values, chosen))


def best(records: Sequence[Record]) -> int:
  """Index of the record with the smallest distance; 0 without distances."""
  name = distance(records)
  if not name:
    return 0
  return min(range(len(records)), key=lambda i: records[i]['headline'][name])


def reason(records: Sequence[Record]) -> str:
  """Why the record of `best` is chosen, for the reader of eval.json."""
  name = distance(records)
  if not name:
    return f'the first of {len(records)}'
  return f'the smallest {name} of {len(records)}'


def distance(records: Sequence[Record]) -> str:
  """The first of `DISTANCES` that all records have, '' if none."""
  return next(
    (n for n in DISTANCES if all(n in r['headline'] for r in records)), ''
  )


def check(records: Sequence[Record]) -> None:
  """Checks that every figure has one protocol in all records.

  Raises:
    ConfigError: see `protocol.check_same`.
  """
  for record in records[1:]:
    names = name_of(records[0]['settings']), name_of(record['settings'])
    check_same_figures(records[0], record, names)


def name_of(settings: Mapping[str, Any]) -> str:
  """'guidance=1.5, ema=0.99'."""
  return ', '.join(f'{k}={v}' for k, v in settings.items())


def table(records: Sequence[Record]) -> str:
  """A line for every record: its settings and its headline figures."""
  keys = list(records[0]['settings'])
  figures = list(
    dict.fromkeys(
      name
      for record in records
      for name, value in record['headline'].items()
      if not isinstance(value, Mapping)
    )
  )
  lines = [[*keys, *figures]]
  for record in records:
    found = (record['headline'].get(name) for name in figures)
    lines.append(
      [
        *(f'{record["settings"][key]}' for key in keys),
        *('' if value is None else f'{value:.4f}' for value in found),
      ]
    )
  widths = [max(map(len, column)) for column in zip(*lines)]
  return '\n'.join(
    '  '.join(cell.rjust(width) for cell, width in zip(line, widths))
    for line in lines
  )


def write(path: pathlib.Path, records: Sequence[Record], flag: str) -> None:
  """Writes <path>.json, and <path>.svg with a curve of distances.

  Args:
    path: path of the files, without suffix.
    records: the evaluations.
    flag: flag with the path, for errors.

  Raises:
    ConfigError: they cannot be written.
  """
  rows = [
    {key: record[key] for key in ('settings', 'headline', 'metrics')}
    for record in records
  ]
  protocols = {k: v for r in records for k, v in r['protocols'].items()}
  content = {'rows': rows, 'protocols': protocols}
  text = json.dumps(content, indent=2) + '\n'
  targets.write_text(path.with_suffix('.json'), text, flag)
  figure = chart(records)
  if figure:
    targets.write_text(path.with_suffix('.svg'), plots.svg(figure), flag)


def chart(records: Sequence[Record]) -> Figure | None:
  """The distance over the key with most numbers, a curve for the other keys.

  Error bars are intervals, where they were measured.

  Returns:
    None without a distance or such a key.
  """
  name = distance(records)
  settings = [record['settings'] for record in records]
  varied = {
    key: len({s[key] for s in settings})
    for key in settings[0]
    if all(isinstance(s[key], (int, float)) for s in settings)
  }
  if not name or max(varied.values(), default=0) < 2:
    return None
  key = max(varied, key=lambda k: varied[k])
  points: dict[str, list[tuple[float, float]]] = {}
  errors: dict[str, list[tuple[float, float]]] = {}
  for record in sorted(records, key=lambda r: r['settings'][key]):
    others = {k: v for k, v in record['settings'].items() if k != key}
    curve = shown(name_of(others))[1:-1]
    value = record['headline'][name]
    points.setdefault(curve, []).append((float(record['settings'][key]), value))
    ends = _interval(record, name) or (value, value)
    errors.setdefault(curve, []).append(ends)
  return plots.lines(points, key, name, errors)


def _interval(record, figure):
  """The interval of the protocol that the headline shows."""
  found = record['metrics'], record.get('protocols', {})
  for name in found[0]:
    if name.partition('/')[0] == figure:
      return readings.interval(name, *found)
  return None
