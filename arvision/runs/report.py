"""An HTML report and a JSON summary of runs, from their folders."""

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from arvision.evals import plots
from arvision.evals.protocol import dataset_name
from arvision.runs import page
from arvision.runs.folder import SCALED, Folder

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
# Captions of pictures that evaluators make.
_EVALUATED = {
  'neighbours': 'Samples and their nearest training images by pixels, by tokens '
  'and by features, the nearest first. Copies look alike in every row.',
}
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
  name = _data_name(folders[-1])
  shares, limits = (
    summary.get(key) or {} for key in ('codebook_usage', 'codebook_reach')
  )
  note = 'Share of the codebook that held-out images use, per scale.'
  if any(limit < 1 for limit in limits.values()):
    note += ' The mark is the largest share that this number of tokens allows.'
  return page.render(
    'report.html',
    title=title or (f'arvision: {name}' if name else 'arvision'),
    lead=f'{names}, {_minutes(summary["seconds"])}',
    cards=_cards(summary, folders),
    samples=[found for f in folders[::-1] if (found := _samples(f))],
    runs=[_run(folder) for folder in folders],
    usage=_usage(shares, limits) if shares else None,
    usage_note=note,
    configs={
      f'{folder.kind}: {folder.path}': json.dumps(folder.config, indent=2)
      for folder in folders
      if folder.config
    },
    # Reading pictures finds faults, so this comes last.
    faults=[fault for folder in folders for fault in folder.faults],
  )


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
      text = _short(value)
    if key in ('frechet', 'fid'):
      label += _of_images(folders, key)
    if key == 'frechet':
      real = summary.get('frechet_of_held_out')
      if real is not None:
        label += f'; held-out images score {_short(real)}'
        label += _of_images(folders, 'frechet_of_held_out')
    cards.append((text, label))
  return cards


def _short(value):
  return page.number(float(f'{value:.3g}'))


def _of_images(folders, figure):
  """', 1,000 images' of a figure with a known number of images, or ''."""
  for folder in folders[::-1]:
    for name in folder.metrics:
      if name.split('/')[0] == figure:
        count = images_of(name, folder.protocols)
        return f', {count:,} images' if count else ''
  return ''


def images_of(name: str, protocols: Mapping[str, Mapping]) -> int:
  """The number of images that a metric was measured on, 0 if unknown.

  Args:
    name: name of the metric, `<figure>/<protocol>`.
    protocols: name -> `Protocol.facts()`.
  """
  protocol = name.partition('/')[2]
  count = protocols.get(protocol, {}).get('images')
  if isinstance(count, int):
    return count
  # Classifiers name their protocols <extractor>-<data>-<size>-<images>.
  match = re.fullmatch(r'classifier-.*-([0-9]{1,9})', protocol)
  return int(match[1]) if match else 0


def _samples(folder):
  """(name, picture) of every grid of samples."""
  pictures = {
    name: folder.picture(path, f'samples {name}', width=860)
    for name, path in folder.grids().items()
  }
  return [(name, found) for name, found in pictures.items() if found]


def _usage(shares, limits):
  text = ', '.join(f'{k} {100 * v:.1f} %' for k, v in shares.items())
  figure = plots.bars(shares, limits)
  return page.chart(figure, f'Bars of codebook usage: {text}')


def _run(folder):
  """What the template shows of a run."""
  pictures = [
    (name.replace('_', ' '), path.name, folder.picture(path, name, width=420))
    for name, path in folder.pictures().items()
  ]
  evaluated = [
    (_EVALUATED.get(name, name), folder.picture(path, name, width=860))
    for name, path in folder.evaluated().items()
  ]
  return {
    'kind': folder.kind,
    'evaluated': [item for item in evaluated if item[1]],
    'pictures': [item for item in pictures if item[2]],
    'curves': [
      (title, line_chart(series, title))
      for title, series in curves(folder.log).items()
      if any(plots.finite(points) for points in series.values())
    ],
    'note': _note(folder.evaluation),
    'metrics': metric_rows(folder.metrics),
    'protocols': protocol_rows(folder.protocols),
    'speed': _speed(folder.log),
    'environment': flat_rows(folder.environment),
  }


def line_chart(series: Mapping[str, Sequence], title: str) -> page.Picture:
  """Curves over steps, with their last values as alternative text."""
  ends = [
    f'{name} ends at {page.number(points[-1][1])}'
    for name, points in series.items()
    if points
  ]
  more = f' and {len(ends) - 8} more' if len(ends) > 8 else ''
  about = f'Chart of {title} over steps: {", ".join(ends[:8])}{more}'
  return page.chart(plots.lines(series, 'step', ''), about)


def metric_rows(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
  """Figure, protocol, scale and value of every metric."""
  rows = []
  for name, value in metrics.items():
    figure, protocol, scale = [*name.split('/', 2), '', ''][:3]
    rows.append(
      {'figure': figure, 'protocol': protocol, 'scale': scale, 'value': value}
    )
  return rows


def protocol_rows(
  protocols: Mapping[str, Mapping],
) -> dict[str, list[tuple[str, str]]]:
  """Name -> the facts of a protocol as rows of a table."""
  return {name: flat_rows(facts) for name, facts in protocols.items()}


def flat_rows(block: Mapping[str, Any]) -> list[tuple[str, str]]:
  """(key, value) as text of the fields of a block and of blocks inside it."""
  rows = []
  for name, value in block.items():
    inner = value if isinstance(value, dict) and value else {'': value}
    for key, item in inner.items():
      text = item if isinstance(item, str) else json.dumps(item)
      rows.append((f'{name}.{key}' if key else name, text or '–'))
  return rows


def _note(evaluation):
  facts = [f'step {evaluation.get("step")}']
  average = evaluation.get('ema')
  if average:
    # Runs without an average are evaluated with their raw parameters.
    facts.append('no average' if average == 'raw' else f'EMA {average}')
  options = evaluation.get('sampling', {})
  facts += [f'{k} {v}' for k, v in options.items() if v is not None]
  return ', '.join(facts) + '. Only figures of one protocol can be compared.'


@dataclasses.dataclass(frozen=True)
class Speeds:
  """The speed of a training, by the lines of its log.

  Attributes:
    images: images/s of every line.
    steps: seconds per step of every line.
  """

  images: list[float]
  steps: list[float]

  @property
  def median(self) -> float:
    return statistics.median(self.images)


def speeds(log: Sequence[Mapping]) -> Speeds | None:
  """The speed of a training; None if its log has none."""
  found, steps = [], []
  before = (0.0, 0.0)
  for line in log:
    speed = line.get('images_per_second', 0.0)
    if not (0 < speed < math.inf and 'examples' in line):
      continue
    here = (line['step'], line['examples'])
    found.append(speed)
    if here[0] > before[0]:
      batch = (here[1] - before[1]) / (here[0] - before[0])
      steps.append(batch / speed)
    before = here
  return Speeds(found, steps) if found else None


def _speed(log):
  """Rows about the speed of the training, from the log."""
  found = speeds(log)
  if not found:
    return []
  low, high = (page.number(f(found.images)) for f in (min, max))
  rows = [
    (
      'training images/s',
      f'{page.number(found.median)} (median of {len(found.images)} log lines, '
      f'{low} to {high})',
    ),
    ('seconds of all steps', page.number(round(training_seconds(log), 1))),
  ]
  if found.steps:
    step = page.number(statistics.median(found.steps))
    rows.insert(1, ('seconds per step', f'{step} (median)'))
  return rows


def _minutes(seconds):
  if not seconds or not math.isfinite(seconds):
    return 'time unknown'
  return f'{int(seconds // 60)} min {int(seconds % 60)} s in total'
