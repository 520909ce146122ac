"""An HTML report and a JSON summary of runs, from their folders."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from arvision.evals import plots
from arvision.evals.protocol import check_same_figures, dataset_name
from arvision.runs import courses, page, readings, sweep
from arvision.runs.folder import SCALED, Folder
from arvision.runs.variants import short_names

# Metrics of summary.json, and their labels on the page.
_FIGURES = {
  'class_accuracy': 'of the samples are recognised as their class',
  'classifier_accuracy': 'of held-out images the classifier recognises',
  'psnr_db': 'PSNR of held-out reconstructions',
  'fid': 'FID',
  'frechet': 'Fréchet distance, classifier features',
  'memorised': 'of the samples repeat a training image',
  'copied_features': 'of the samples are nearer to a training image than 95 % of '
  'held-out images (5 % without copying)',
  'sampling_images_per_second': 'images sampled per second',
}
_SHARES = (
  'class_accuracy',
  'classifier_accuracy',
  'memorised',
  'copied_features',
)
# Captions of the charts of usage.
_USAGE = {
  'codebook_usage': 'share of the codes that occur',
  'bit_usage': 'share of the bits that take both values',
  'level_usage': 'share of the levels of a channel that occur',
}
# Captions of pictures that evaluators make.
_EVALUATED = {
  'neighbours': 'Samples and their nearest training images by pixels, by tokens '
  'and by features, the nearest first. Copies look alike in every row.',
}


def summarise(
  folders: Sequence[Folder], seconds: float | None = None
) -> dict[str, Any]:
  """The content of summary.json; None for metrics that were not measured.

  The last folder with a metric counts, and of several generators or tokenizers
  the last one alone; 'runs' then has the figures of each. Folders whose figures
  are of different protocols are refused, see `protocol.check_same`.

  Args:
    folders: the runs.
    seconds: wall time of everything; None: the time of all steps by the logs,
      and of the evaluations, without compilation and saving.
  """
  figures: dict[str, Any] = {}
  for i, folder in enumerate(folders):
    for other in folders[:i]:
      names = str(other.path), str(folder.path)
      check_same_figures(other.evaluation, folder.evaluation, names)
  for folder in {folder.kind: folder for folder in folders}.values():
    figures |= folder.headline
  if seconds is None:
    seconds = sum(
      readings.training_seconds(f.log) + f.evaluation.get('seconds', 0.0)
      for f in folders
    )
  keys = [
    *_FIGURES,
    'frechet_of_held_out',
    'ssim',
    *SCALED,
  ]
  summary = {key: figures.get(key) for key in keys}
  summary['seconds'] = round(seconds, 1)
  named = dict(zip(labels(folders), folders))
  if len({folder.kind for folder in folders}) < len(folders):
    summary['runs'] = {name: f.headline for name, f in named.items()}
  summary['paths'] = {
    name: {
      'workdir': str(folder.path),
      'pictures': [str(p) for p in folder.pictures().values()],
      'samples': [str(p) for p in folder.grids().values()],
      'tensorboard': str(folder.path / 'tensorboard'),
    }
    for name, folder in named.items()
  }
  return summary


def labels(folders: Sequence[Folder]) -> list[str]:
  """'generator', or 'generator a' where there are several, of every folder."""
  kinds = [folder.kind for folder in folders]
  return [
    kind if kinds.count(kind) == 1 else f'{kind} {name}'
    for kind, name in zip(kinds, short_names(folders))
  ]


def render(
  folders: Sequence[Folder], summary: Mapping[str, Any], title: str = ''
) -> str:
  """The HTML page.

  Args:
    folders: the runs.
    summary: result of `summarise`.
    title: title of the page; '' for one with the name of the data.
  """
  names = ' and '.join(str(folder.path) for folder in folders)
  name = _data_name(folders[-1])
  several = len({folder.kind for folder in folders}) < len(folders)
  named = dict(zip(labels(folders), folders))
  groups = [_figures('', summary, folders)]
  if several:
    groups = [_figures(label, f.headline, [f]) for label, f in named.items()]
  return page.render(
    'report.html',
    title=title or (f'arvision: {name}' if name else 'arvision'),
    lead=f'{names}, {_minutes(summary["seconds"])}',
    groups=groups,
    samples=[
      (label if several else '', found)
      for label, f in reversed(named.items())
      if (found := _samples(f))
    ],
    runs=[_run(folder, label) for label, folder in named.items()],
    configs={
      f'{folder.kind}: {folder.path}': json.dumps(folder.config, indent=2)
      for folder in folders
      if folder.config
    },
    # Reading pictures finds faults, so this comes last.
    faults=[fault for folder in folders for fault in folder.faults],
  )


def _figures(label, figures, folders):
  """The cards and the usage of codes of one run, or of a generator with its
  tokenizer.
  """
  limits = figures.get('codebook_reach') or {}
  note = 'What held-out images use, per scale.'
  if any(limit < 1 for limit in limits.values()):
    note += ' The mark is the largest share of codes that so many tokens allow.'
  return {
    'label': label,
    'cards': _cards(figures, folders),
    'usage': _usage(figures, limits),
    'usage_note': note,
  }


def _data_name(folder):
  """Name of the data of a run, '' where the config does not name it."""
  try:
    source = folder.config['data']['source']
    return dataset_name(source) if source else ''
  except (KeyError, TypeError, ValueError, AttributeError):
    return ''


def _cards(summary, folders):
  cards = []
  for key, label in _FIGURES.items():
    value = summary.get(key)
    if value is None:
      continue
    if key in _SHARES:
      text = f'{100 * value:.1f} %'
    elif key == 'psnr_db':
      text = f'{value:.1f} dB'
    else:
      text = page.short(value)
    if key in ('frechet', 'fid'):
      label += _of_images(folders, key)
    if key == 'frechet':
      real = summary.get('frechet_of_held_out')
      if real is not None:
        label += f'; held-out images score {page.short(real)}'
        label += _of_images(folders, 'frechet_of_held_out')
    cards.append((text, label))
  return cards


def _of_images(folders, figure):
  """', 180 images, 95 %: 2 to 3', as far as it is known about a figure."""
  for folder in folders[::-1]:
    for name in folder.metrics:
      if name.split('/')[0] == figure:
        count = readings.images_of(name, folder.protocols)
        text = f', {count:,} images' if count else ''
        return text + readings.interval_text(
          name, folder.metrics, folder.protocols, ', 95 %: '
        )
  return ''


def _samples(folder):
  """(name, picture) of every grid of samples."""
  pictures = {
    name: folder.picture(path, f'samples {name}', width=860)
    for name, path in folder.grids().items()
  }
  return [(name, found) for name, found in pictures.items() if found]


def _usage(summary, limits):
  """(caption, bars) of the codes, and of what they consist of."""
  found = []
  for figure, caption in _USAGE.items():
    if shares := summary.get(figure):
      text = ', '.join(f'{k} {100 * v:.1f} %' for k, v in shares.items())
      marks = limits if figure == 'codebook_usage' else {}
      bars = plots.bars(shares, marks)
      found.append((caption, page.chart(bars, f'Bars of {figure}: {text}')))
  return found


def _run(folder, label):
  """What the template shows of a run."""
  pictures = [
    (name.replace('_', ' '), path.name, folder.picture(path, name, width=420))
    for name, path in folder.pictures().items()
  ]
  rows = readings.metric_rows(folder.metrics, folder.protocols)
  evaluated = [
    (_EVALUATED.get(name, name), folder.picture(path, name, width=860))
    for name, path in folder.evaluated().items()
  ]
  return {
    'label': label,
    'evaluated': [item for item in evaluated if item[1]],
    'pictures': [item for item in pictures if item[2]],
    'curves': charts(readings.curves(folder.log), folder.spikes),
    'spikes': courses.spike_rows(folder.spikes),
    'rise': courses.rise(folder.log),
    'note': _note(folder.evaluation),
    'metrics': [row for row in rows if not row['scale']],
    'scales': _scales(rows),
    'protocols': readings.protocol_rows(folder.protocols),
    'sweep': _sweep(folder.evaluation),
    'speed': _speed(folder.log),
    'environment': readings.flat_rows(folder.environment),
  }


def _sweep(evaluation):
  """The evaluations of several settings: a table, and a chart of distances."""
  records = evaluation.get('sweep', [])
  known = lambda record: (record['metrics'], record.get('protocols', {}))
  names = {
    name: None
    for record in records
    for name in readings.without_intervals(*known(record))
    if name.count('/') < 2
  }
  cell = lambda name, record: (
    record['metrics'].get(name),
    readings.interval_text(name, *known(record)),
  )
  figure = sweep.chart(records) if records else None
  distance = sweep.distance(records)
  return {
    'settings': list(records[0]['settings']) if records else [],
    'figures': [name.partition('/')[::2] for name in names],
    'lines': [
      (list(record['settings'].values()), [cell(n, record) for n in names])
      for record in records
    ],
    'chart': figure and page.chart(figure, f'Chart of {distance} by settings'),
    'chosen': evaluation.get('chosen', ''),
  }


def _scales(rows):
  """The metrics of every scale as a table: names of figures, then lines."""
  tables: dict[tuple[str, str], dict[str, float]] = {}
  for row in rows:
    if row['scale']:
      figure = row['figure'], row['protocol']
      tables.setdefault(figure, {})[row['scale']] = row['value']
  scales = dict.fromkeys(row['scale'] for row in rows if row['scale'])
  lines = [
    (scale, [found.get(scale) for found in tables.values()]) for scale in scales
  ]
  return {'figures': list(tables), 'lines': lines}


def _line_chart(
  series: Mapping[str, Sequence], title: str, marks: Sequence[float] = ()
) -> page.Picture:
  """Curves over steps, with their last values as alternative text."""
  ends = [
    f'{name} ends at {page.number(points[-1][1])}'
    for name, points in series.items()
    if points
  ]
  more = f' and {len(ends) - 8} more' if len(ends) > 8 else ''
  about = f'Chart of {title} over steps: {", ".join(ends[:8])}{more}'
  within = courses.focus(series)
  figure = plots.lines(series, 'step', '', within=within)
  courses.mark(figure, marks)
  return page.chart(figure, about)


def charts(
  curves: Mapping[str, Mapping[str, Sequence]], spikes: Sequence[Mapping] = ()
) -> list[tuple]:
  """(title, chart, what its axis leaves out) of every figure with points.

  Args:
    curves: see `readings.curves`.
    spikes: events of loss spikes, marked in the charts of their metrics.
  """
  steps = lambda title: sorted(
    {s['step'] for s in spikes if _figure(s['metric']) == title}
  )
  return [
    (
      title,
      _line_chart(series, title, steps(title)),
      courses.cut_text(series, courses.focus(series)),
    )
    for title, series in curves.items()
    if any(plots.finite(points) for points in series.values())
  ]


def _figure(metric):
  """The chart of a metric of training steps."""
  figure, part = metric.replace('_', ' ').partition('/')[::2]
  return f'{figure} by part' if part else figure


def _note(evaluation):
  facts = [f'step {evaluation.get("step")}']
  average = evaluation.get('ema')
  if average:
    # Runs without an average are evaluated with their raw parameters.
    facts.append('no average' if average == 'raw' else f'EMA {average}')
  options = evaluation.get('sampling', {})
  facts += [f'{k} {v}' for k, v in options.items() if v is not None]
  return ', '.join(facts) + '. Only figures of one protocol can be compared.'


def _speed(log):
  """Rows about the speed of the training, from the log."""
  found = readings.speeds(log)
  if not found:
    return []
  low, high = (page.number(f(found.images)) for f in (min, max))
  rows = [
    (
      'training images/s',
      f'{page.number(found.median)} (median of {len(found.images)} log lines, '
      f'{low} to {high})',
    ),
    (
      'seconds of all steps',
      page.number(round(readings.training_seconds(log), 1)),
    ),
  ]
  if found.steps:
    step = page.number(statistics.median(found.steps))
    rows.insert(1, ('seconds per step', f'{step} (median)'))
  return rows


def _minutes(seconds):
  if not seconds or not math.isfinite(seconds):
    return 'time unknown'
  return f'{int(seconds // 60)} min {int(seconds % 60)} s in total'
