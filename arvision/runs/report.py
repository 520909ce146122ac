"""An HTML report and a JSON summary of runs, from their folders."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from arvision.evals import chart, page
from arvision.evals.protocol import dataset_name
from arvision.runs.folder import SCALED, Folder

# Metrics of summary.json, and their labels on the page.
_FIGURES = {
  'class_accuracy': 'of the samples are recognised as their class',
  'classifier_accuracy': 'of held-out images the classifier recognises',
  'psnr_db': 'PSNR of held-out reconstructions',
  'frechet': 'Fréchet distance, classifier features',
  'memorised': 'of the samples repeat a training image',
  'sampling_images_per_second': 'images sampled per second',
}
_SHARES = ('class_accuracy', 'classifier_accuracy', 'memorised')
# Keys of a log line that get no curve.
_AXES = ('step', 'examples', 'epoch')
_WHERE = ('held_out', 'ema_')
# The least important charts, at the end.
_LAST = ('gradient norm', 'learning rate', 'weight decay', 'images per second')


def curves(log: Sequence[Mapping]) -> dict[str, dict[str, list]]:
  """Chart -> series -> (step, value) points, the most important charts first.

  The name of a metric is `[held_out/[ema_<decay>/]]figure[/part]`. Training and
  held-out values of a figure share a chart. Its parts (scales, steps, networks)
  share another chart, which only has training values.
  """
  charts: dict[str, dict[str, list]] = {}
  for line in log:
    for name, value in line.items():
      place = _place(name)
      if place is None:
        continue
      points = charts.setdefault(place[0], {}).setdefault(place[1], [])
      points.append((float(line['step']), float(value)))
  rank = lambda title: (
    title.startswith(_LAST),
    not title.startswith('loss'),
    title,
  )
  return {title: charts[title] for title in sorted(charts, key=rank)}


def _place(name):
  """(chart, series) of the name of a metric; None for no curve."""
  parts = name.split('/')
  where = [p for p in parts if p.startswith(_WHERE)]
  figure, *part = [p.replace('_', ' ') for p in parts if p not in where]
  if name in _AXES or (where and part):
    return None
  if not part:
    return figure, ' '.join(where).replace('_', ' ') or 'training'
  series = ' '.join(part)
  kind = series.split(' ')[0] if ' ' in series else 'part'
  return f'{figure} by {kind}', series


def summarise(
  folders: Sequence[Folder], seconds: float | None = None
) -> dict[str, Any]:
  """The content of summary.json; None for metrics that were not measured.

  The last folder with a metric counts.

  Args:
    folders: the runs.
    seconds: wall time of everything; None: the time of all steps by the logs,
      and of the evaluations, without compilation and saving.
  """
  figures: dict[str, Any] = {}
  for folder in folders:
    figures |= folder.headline
  if seconds is None:
    seconds = sum(
      training_seconds(f.log) + f.evaluation.get('seconds', 0.0)
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
  summary['paths'] = {
    folder.kind: {
      'workdir': str(folder.path),
      'pictures': [str(p) for p in folder.pictures().values()],
      'samples': [str(p) for p in folder.grids().values()],
      'tensorboard': str(folder.path / 'tensorboard'),
    }
    for folder in folders
  }
  return summary


def training_seconds(log: Sequence[Mapping]) -> float:
  """Seconds of all steps, from the examples and images/s of the log lines."""
  total, before = 0.0, 0.0
  for line in log:
    speed = line.get('images_per_second', 0.0)
    if speed > 0 and 'examples' in line:
      total += (line['examples'] - before) / speed
      before = line['examples']
  return total


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
  parts = [page.cards(_cards(summary))]
  for folder in folders[::-1]:
    parts.append(_samples(folder))
  for folder in folders:
    parts.append(_pictures(folder))
  parts.append(_usage(summary))
  for folder in folders:
    parts.append(_curves(folder))
  for folder in folders:
    parts.append(_figures(folder))
  configs = {
    f'{folder.kind}: {folder.path}': json.dumps(folder.config, indent=2)
    for folder in folders
  }
  parts.append(page.section('Config', page.folded(configs)))
  name = _data_name(folders[-1])
  faults = [(fault, '') for folder in folders for fault in folder.faults]
  parts.append(page.section('Left out', page.table(faults, ('file', ''))))
  lead = f'{names}, {_minutes(summary["seconds"])}'
  title = title or (f'arvision: {name}' if name else 'arvision')
  return page.page(title, lead, parts)


def _data_name(folder):
  """Name of the data of a run, '' where the config does not name it."""
  try:
    source = folder.config['data']['source']
    return dataset_name(source) if source else ''
  except (KeyError, TypeError, ValueError, AttributeError):
    return ''


def _cards(summary):
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
      text = chart.number(float(f'{value:.3g}'))
    if key == 'frechet' and summary.get('frechet_of_held_out') is not None:
      real = chart.number(float(f'{summary["frechet_of_held_out"]:.3g}'))
      label += f'; held-out images score {real}'
    cards.append((text, label))
  return cards


def _samples(folder):
  grids = folder.grids()
  content = page.grid(
    [
      page.figure(folder.picture(path, name, width=860), caption=name)
      for name, path in grids.items()
    ]
  )
  return page.section('Samples', content)


def _pictures(folder):
  content = page.grid(
    [
      page.figure(
        folder.picture(path, name, width=420), name.replace('_', ' '), path.name
      )
      for name, path in folder.pictures().items()
    ]
  )
  return page.section(
    f'Pictures from the training of the {folder.kind}', content
  )


def _usage(summary):
  usage = summary.get('codebook_usage')
  if not usage:
    return ''
  limits = summary.get('codebook_reach') or {}
  note = 'Share of the codebook that held-out images use, per scale.'
  if any(limit < 1 for limit in limits.values()):
    note += ' The mark is the largest share that this number of tokens allows.'
  return page.section(
    'Codebook usage', chart.bar_chart(usage, limits, width=620), note
  )


def _curves(folder):
  figures = []
  for title, series in curves(folder.log).items():
    svg = chart.line_chart(series)
    keys = chart.legend(list(series))
    figures.append(page.figure(svg + keys if svg else '', title))
  return page.section(f'Training of the {folder.kind}', page.grid(figures))


def _figures(folder):
  metrics = folder.evaluation.get('metrics', {})
  rows = [(name, chart.number(value)) for name, value in metrics.items()]
  if not rows:
    return ''
  facts = [f'step {folder.evaluation.get("step")}']
  average = folder.evaluation.get('ema')
  if average:
    # Runs without an average are evaluated with their raw parameters.
    facts.append('no average' if average == 'raw' else f'EMA {average}')
  options = folder.evaluation.get('sampling', {})
  facts += [f'{k} {v}' for k, v in options.items() if v is not None]
  note = ', '.join(facts) + '. The name of a metric contains its protocol.'
  return page.section(
    f'Figures of the {folder.kind}',
    page.table(rows, ('metric / protocol', 'value')),
    note,
  )


def _minutes(seconds):
  if not seconds or not math.isfinite(seconds):
    return 'time unknown'
  return f'{int(seconds // 60)} min {int(seconds % 60)} s in total'
