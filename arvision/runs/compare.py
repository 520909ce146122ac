"""A page that compares runs: a row per variant, a column per metric.

Runs whose configs differ in the seed alone are one variant. Figures of
different protocols never share a column.
"""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence

from arvision.errors import ConfigError
from arvision.evals import plots, protocol
from arvision.runs import page, readings, report, tables
from arvision.runs.folder import Folder
from arvision.runs.variants import Variant

# Ends of the names of figures of which a smaller, or larger, value is better.
_LOW = (
  '_bits_per_dimension',
  '_bits_per_token',
  '_cer',
  '_copied_features',
  '_copied_pixels',
  '_copied_tokens',
  '_fid',
  '_fid_infinity',
  '_frechet',
  '_kid',
  '_loss',
  '_lpips',
  '_memorised',
  '_rfid',
  '_sfid',
  '_wer',
)
_HIGH = (
  '_class_accuracy',
  '_coverage',
  '_density',
  '_images_per_second',
  '_inception_score',
  '_ms_ssim',
  '_precision',
  '_psnr_db',
  '_recall',
  '_ssim',
)
# Blocks of a config that a loss depends on, besides the model.
_OF_LOSS = ('tokenizer', 'layout', 'feed', 'head', 'data', 'frozen', 'task')
# Curves that the config decides.
_SETTINGS = ('learning rate', 'weight decay')
# Most overrides in the first cell of a row, and letters of a value there.
_SHOWN, _LETTERS = 6, 40


@dataclasses.dataclass(frozen=True)
class Column:
  """A metric of all variants.

  Attributes:
    figure: name of the figure.
    protocol: name of its protocol.
    values: value of every run of every variant that has one.
    seeds: the seeds of these runs.
  """

  figure: str
  protocol: str
  values: tuple[tuple[float, ...], ...]
  seeds: tuple[tuple[int, ...], ...] = ()

  @property
  def better(self) -> str:
    """'lower', 'higher', or '' if neither is better."""
    # 'detail_psnr_db' is a PSNR too.
    is_one = lambda names: f'_{self.figure}'.endswith(names)
    return 'lower' if is_one(_LOW) else 'higher' if is_one(_HIGH) else ''

  @property
  def means(self) -> list[float | None]:
    return [plots.mean_and_spread(v)[0] if v else None for v in self.values]

  @property
  def best(self) -> float | None:
    """The best mean, None if there is nothing to choose from."""
    found = {mean for mean in self.means if mean is not None}
    if not self.better or len(found) < 2:
      return None
    return min(found) if self.better == 'lower' else max(found)

  def summary(self, i: int) -> tuple[float, float]:
    """Mean and standard deviation of a variant."""
    return plots.mean_and_spread(self.values[i])

  def by_seed(self, i: int) -> dict[int, float]:
    """Seed -> value of a variant."""
    return dict(zip(self.seeds[i], self.values[i]))

  def against_first(self, i: int) -> tables.Paired | None:
    """The differences of a variant to the first one; None if there are none.

    Runs are paired by their seeds. Two single runs are one pair, whatever
    their seeds.
    """
    if not (i and self.values[0] and self.values[i]):
      return None
    if len(self.values[0]) == len(self.values[i]) == 1:
      return tables.Paired((self.values[i][0] - self.values[0][0],))
    return tables.paired(self.by_seed(0), self.by_seed(i))


def check_kinds(folders: Sequence[Folder]) -> None:
  """Checks that runs are of one kind; images that were evaluated fit to both.

  Raises:
    ConfigError: tokenizers and generators, whose losses and speeds measure
      different things.
  """
  kinds = {folder.kind: folder.path for folder in folders}
  if {'tokenizer', 'generator'} <= {*kinds}:
    tokenizer, generator = kinds['tokenizer'], kinds['generator']
    raise ConfigError(
      f"'{tokenizer}' holds a tokenizer and '{generator}' a generator; wanted "
      'runs of one kind. For a page about both: arvision report '
      f'--workdir={tokenizer} --workdir={generator}'
    )


def columns(found: Sequence[Variant]) -> list[Column]:
  """The metrics of variants: evaluations, then losses and speeds."""
  names = {
    name: None
    for variant in found
    for folder in variant.folders
    for name in readings.without_intervals(folder.metrics, folder.protocols)
    if name.count('/') < 2  # metrics of every scale have no column
  }
  result = [
    Column(*name.partition('/')[::2], *_values(found, name, _metrics))
    for name in names
  ]
  if _same_loss(found):
    result.append(Column('loss', 'held out', *_values(found, 'loss', _logged)))
  # A speed is comparable on the same devices.
  places = {_devices(f): None for v in found for f in v.folders}
  result += [
    Column('images_per_second', f'training on {p}', *_values(found, p, _speeds))
    for p in places
  ]
  return [column for column in result if any(column.values)]


def _values(found, key, read):
  """The values of a column, read from every run with `read`, and the seeds."""
  values, seeds = [], []
  for variant in found:
    every = [read(folder).get(key) for folder in variant.folders]
    values.append(tuple(v for v in every if v is not None))
    known = zip(variant.seeds, every)
    seeds.append(tuple(seed for seed, v in known if v is not None))
  return tuple(values), tuple(seeds)


def _metrics(folder):
  return folder.metrics


def _logged(folder):
  """The last held-out loss, of the slowest average."""
  series = readings.curves(folder.log).get('loss', {})
  names = sorted(name for name in series if name.startswith('held out'))
  return {'loss': series[names[-1]][-1][1]} if names else {}


def _speeds(folder):
  speeds = readings.speeds(folder.log)
  return {_devices(folder): speeds.median} if speeds else {}


def _devices(folder):
  return str(folder.environment.get('devices', 'unknown devices'))


def _same_loss(found):
  keys = {key.split('.')[0] for variant in found for key in variant.overrides}
  return not keys & {*_OF_LOSS}


def render(found: Sequence[Variant], title: str = '') -> str:
  """The HTML page.

  Args:
    found: result of `variants.group`.
    title: title of the page; '' for one with the number of variants.
  """
  table = columns(found)
  protocols: dict[str, Mapping] = {}
  for variant in found:
    for folder in variant.folders:
      protocols |= folder.protocols
  runs = sum(len(v.folders) for v in found)
  spread = runs > len(found)
  return page.render(
    'compare.html',
    title=title or f'arvision: {_count(len(found), "variant")}',
    lead=f'{_count(runs, "run")}. '
    + ('± is the standard deviation over seeds. ' if spread else '')
    + 'The best mean of a column is marked. '
    + f'Δ is the difference to "{found[0].name}"'
    + (', run by run with the same seed.' if spread else '.'),
    columns=[_heading(c, protocols) for c in table],
    rows=[_row(i, v, table) for i, v in enumerate(found)],
    protocols=readings.protocol_rows(protocols),
    notes=_notes(table, protocols),
    overrides=_override_table(found),
    charts=[_chart(found, c) for c in table if c.best is not None],
    curves=_curves(found),
    curves_note=''
    if _same_loss(found)
    else 'Losses of different tokenizers, heads, layouts, feeds or data '
    'measure different things: compare their course, not their height.',
    samples=_samples(found),
    faults=[x for v in found for f in v.folders for x in f.faults],
  )


def _count(number, noun):
  return f'{number} {noun}{"s" if number > 1 else ""}'


def _heading(column, protocols):
  images = readings.images_of(f'{column.figure}/{column.protocol}', protocols)
  return {
    'figure': column.figure.replace('_', ' '),
    'protocol': column.protocol,
    'better': column.better,
    'images': f'{images:,} images' if images else '',
  }


def _row(i, variant, table):
  cells = []
  for column in table:
    values = column.values[i]
    text = ''
    if values:
      text = spread_text(*column.summary(i))
    interval = ''
    if len(variant.folders) == 1:
      name = f'{column.figure}/{column.protocol}'
      [run] = variant.folders
      interval = readings.interval_text(name, run.metrics, run.protocols)
    cells.append(
      {
        'text': text,
        'count': len(values),
        'interval': interval,
        'difference': difference_text(column, i),
        'best': bool(values) and column.means[i] == column.best,
      }
    )
  overrides = [_override(*item) for item in variant.overrides.items()]
  return {
    'name': variant.name,
    'runs': len(variant.folders),
    'overrides': overrides[:_SHOWN],
    'more': max(0, len(overrides) - _SHOWN),
    'cells': cells,
  }


def spread_text(mean: float, spread: float) -> str:
  """'1.64 ± 0.02'."""
  text = page.number(mean)
  return text + (f' ± {page.number(float(f"{spread:.2g}"))}' if spread else '')


def difference_text(column: Column, i: int) -> str:
  """'Δ -0.27 ± 0.05' of a variant to the first; '' if it has none."""
  pairs = column.against_first(i)
  if not pairs:
    return ''
  sign = '+' if pairs.mean > 0 else ''
  mean = float(f'{pairs.mean:.3g}')
  return f'Δ {sign}{spread_text(mean, pairs.spread)}'


def _override(key, value):
  text = value if isinstance(value, str) else json.dumps(value)
  short = text if len(text) <= _LETTERS else f'{text[: _LETTERS - 1]}…'
  return f'{key}={short}'


def _notes(table, protocols):
  """Lines about figures with several columns: what differs."""
  by_figure = collections.defaultdict(list)
  for column in table:
    by_figure[column.figure].append(column.protocol)
  lines = []
  for figure, names in by_figure.items():
    known = [name for name in names if name in protocols]
    for name in known[1:]:
      differ = protocol.differences(protocols[known[0]], protocols[name])
      lines.append(
        f'{figure} has a column for each protocol: {"; ".join(differ)}'
      )
  return lines


def _override_table(found):
  """Rows (key, value of every variant), first the names of the variants."""
  keys = list(found[0].overrides)
  if len(keys) <= _SHOWN:
    return []
  text = lambda v: v if isinstance(v, str) else json.dumps(v)
  head = ['key', *(v.name for v in found)]
  return [head] + [[k, *(text(v.overrides[k]) for v in found)] for k in keys]


def _chart(found, column):
  values = {v.name: c for v, c in zip(found, column.values) if c}
  label = f'{column.figure.replace("_", " ")}, {column.better} is better'
  text = ', '.join(
    f'{name} {page.number(plots.mean_and_spread(v)[0])}'
    for name, v in values.items()
  )
  picture = page.chart(plots.dots(values, label), f'Means of {label}: {text}')
  return column.figure.replace('_', ' '), column.protocol, picture


def _curves(found):
  """`report.charts` of every metric that two runs or more have logged.

  Of held-out metrics, those of running averages if there are any.
  """
  charts: dict[str, dict[str, list]] = {}
  for variant in found:
    for folder in variant.folders:
      name = variant.name
      if len(variant.folders) > 1:
        name += f', seed {folder.config.get("seed")}'
      for title, series in readings.curves(folder.log).items():
        if ' by ' in title or title in _SETTINGS:
          continue
        averaged = any('ema' in kind for kind in series)
        for kind, points in series.items():
          if kind == 'held out' and averaged:
            continue
          drawn = charts.setdefault(f'{title}, {kind}', {})
          drawn[name] = plots.finite(points)
  several = {k: s for k, s in charts.items() if sum(map(bool, s.values())) > 1}
  return report.charts(several)


def _samples(found):
  """(name, picture) of a grid of every variant, of one name if possible."""
  grids = [v.folders[0].grids() for v in found]
  common = [n for n in grids[0] if all(n in g for g in grids)]
  pictures = []
  for variant, have in zip(found, grids):
    name = next(iter([*common, *have]), None)
    if name is None:
      continue
    about = f'samples {name} of {variant.name}'
    picture = variant.folders[0].picture(have[name], about, width=420)
    if picture:
      pictures.append((variant.name, name, picture))
  return pictures
