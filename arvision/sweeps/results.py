"""The table of a sweep as CSV, Markdown and HTML."""

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence

from arvision.runs import compare, tables, targets
from arvision.runs.compare import Column
from arvision.runs.folder import EVALUATION, Folder
from arvision.runs.variants import Variant, group
from arvision.sweeps.runs import Runs
from arvision.sweeps.study import Study, run_name
from arvision.training.workdir import CONFIG, LOG

# Files beside sweep.json.
FILES = ('results.csv', 'results.md', 'results.html')


def variants(study: Study, runs: Runs) -> list[Variant]:
  """The points of a sweep with their complete runs; without those of none."""
  complete: dict[str, tuple[Folder, ...]] = {}
  for point in study.points:
    names = [run_name(point, seed) for seed in study.seeds_of(point)]
    folders = [
      Folder(runs.folder(n)) for n in names if _complete(study, runs, n)
    ]
    if folders:
      complete[point.name] = tuple(folders)
  if not complete:
    return []
  every = [folder for folders in complete.values() for folder in folders]
  # What differs in the configs: a variant may be more than its overrides say.
  differ = {id(f): v.overrides for v in group(every) for f in v.folders}
  return [
    Variant(name, differ[id(folders[0])], folders)
    for name, folders in complete.items()
  ]


def _complete(study, runs, name):
  last = LOG if study.evaluation is None else EVALUATION
  return all((runs.folder(name) / file).is_file() for file in (CONFIG, last))


def write(
  study: Study, found: Sequence[Variant], root: pathlib.Path, command: str
) -> list[pathlib.Path]:
  """Writes the table in all forms.

  Args:
    study: the sweep.
    found: result of `variants`, not empty.
    root: output folder.
    command: the command line of the sweep.

  Returns:
    the files.
  """
  columns = compare.columns(found)
  texts = (
    as_csv(study, found, columns),
    as_markdown(study, found, columns, command),
    compare.render(found, f'Sweep of {study.config}'),
  )
  files = [root / name for name in FILES]
  for file, text in zip(files, texts):
    targets.write_text(file, text)
  return files


def as_csv(
  study: Study, found: Sequence[Variant], columns: Sequence[Column]
) -> str:
  """A line per point and metric, with a column per seed."""
  seeds = sorted({seed for v in found for seed in v.seeds})
  points = {point.name: point for point in study.points}
  keys = list(dict.fromkeys(k for p in study.points for k in p.overrides))
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  writer.writerow(
    [
      *('point', 'variant', *keys, 'figure', 'protocol', 'better'),
      *(f'seed_{seed}' for seed in seeds),
      *('runs', 'mean', 'standard_deviation', 'pairs', 'difference'),
      'standard_deviation_of_difference',
    ]
  )
  for i, variant in enumerate(found):
    for column in columns:
      values = column.by_seed(i)
      if not values:
        continue
      mean, spread = column.summary(i)
      point = points[variant.name]
      row = [
        *(point.name, point.variant),
        *(point.overrides.get(key, '') for key in keys),
        *(column.figure, column.protocol, column.better),
        *(values.get(seed, '') for seed in seeds),
        *(len(values), mean, spread if len(values) > 1 else ''),
      ]
      pairs = column.against_first(i)
      if pairs:
        more = pairs.spread if len(pairs.values) > 1 else ''
        row += [len(pairs.values), pairs.mean, more]
      else:
        row += [0, '', '']
      writer.writerow(row)
  return buffer.getvalue()


def as_markdown(
  study: Study,
  found: Sequence[Variant],
  columns: Sequence[Column],
  command: str,
) -> str:
  """A row per point: mean ± deviation, and the difference to the first."""
  chosen = [c for c in columns if c.better]
  names = dict.fromkeys(c.protocol for c in chosen)
  numbers = {name: i for i, name in enumerate(names, 1)}
  heading = lambda c: f'{c.figure.replace("_", " ")} [{numbers[c.protocol]}]'
  rows = []
  for i, variant in enumerate(found):
    name = variant.name.replace('|', '\\|')
    row = {'point': name, 'runs': f'{len(variant.folders)}'}
    rows.append(row | {heading(c): cell(c, i) for c in chosen})
  lines = [
    f'# Sweep of {study.config}',
    '',
    f'Made by `{command}` on {machine(found)}.',
    '',
    'Cells are means over the seeds ± standard deviation (n - 1). Δ is the mean '
    f'difference to "{found[0].name}" over the seeds that both have, ± its '
    'standard deviation. Figures without a better direction are in results.csv.',
    '',
    *tables.markdown(rows, ('point',)),
    '',
    *(f'{i}. `{name}`' for name, i in numbers.items()),
    '',
  ]
  return '\n'.join(lines)


def cell(column: Column, i: int) -> str:
  """'1.64 ± 0.02, Δ -0.27 ± 0.05' of a variant."""
  if not column.values[i]:
    return '–'
  text = compare.spread_text(*column.summary(i))
  difference = compare.difference_text(column, i)
  return f'{text}, {difference}' if difference else text


def machine(found: Sequence[Variant]) -> str:
  """Devices, cores and JAX versions of the runs."""
  texts = {_machine(f.environment): None for v in found for f in v.folders}
  return '; '.join(texts)


def _machine(environment: Mapping) -> str:
  versions = environment.get('versions')
  jax = versions.get('jax') if isinstance(versions, dict) else None
  return (
    f'{environment.get("devices", "unknown devices")}, '
    f'{environment.get("cores", "?")} cores, jax {jax or "?"}'
  )
