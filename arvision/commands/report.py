"""Writes one HTML page and one JSON file about the runs in some folders."""

import argparse
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from arvision.build import ConfigError
from arvision.commands import common, runs
from arvision.evals import chart, page
from arvision.evals.protocol import dataset_name
from arvision.ranges import AtLeast0, number

# The figures of summary.json, and what the page calls them.
_FIGURES = {
  'class_accuracy': 'of the samples are recognised as the class asked for',
  'classifier_accuracy': 'of held-out images the classifier recognises',
  'psnr_db': 'PSNR of held-out reconstructions',
  'frechet': 'Fréchet distance, classifier features',
  'memorised': 'of the samples repeat a training image',
  'sampling_images_per_second': 'images drawn per second',
}
_SHARES = ('class_accuracy', 'classifier_accuracy', 'memorised')
# Keys of a line of the log that are no curves.
_AXES = ('step', 'examples', 'epoch')
_WHERE = ('held_out', 'ema_')
# Charts that tell least, at the end.
_LAST = ('gradient norm', 'learning rate', 'weight decay', 'images per second')


def main(argv: list[str]) -> None:
  """`arvision report`: writes report.html and summary.json."""
  flags, _ = common.parse(parser(), argv)
  folders = [pathlib.Path(f) for f in flags.workdir]
  output = pathlib.Path(flags.output or folders[-1])
  found = [Folder(f) for f in folders]
  summary = summarise(found, flags.seconds)
  summary['paths']['report'] = str(output / 'report.html')
  output.mkdir(parents=True, exist_ok=True)
  runs.write_text(output / 'report.html', render(found, summary, flags.title))
  runs.write_text(output / 'summary.json', json.dumps(summary, indent=2) + '\n')
  print(f'{output / "report.html"}\n{output / "summary.json"}')


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('report', __doc__)
  flags.add_argument(
    '--workdir',
    action='append',
    required=True,
    metavar='DIR',
    help='folder of a run; may be given several times, the tokenizer first',
  )
  flags.add_argument(
    '--output', metavar='DIR', help='where to write; default: the last workdir'
  )
  flags.add_argument('--title', default='', help='of the page')
  flags.add_argument(
    '--seconds',
    type=number(AtLeast0),
    help='wall time of everything, for the summary; default: what the logs say',
  )
  return flags


class Folder:
  """What a workdir has to show. Everything but the config may be absent.

  Attributes:
    path: of the folder.
    config: as in config.json.
    log: the lines of log.jsonl, oldest first.
    evaluation: eval.json, {} without one.
  """

  def __init__(self, path: pathlib.Path):
    """Reads the folder.

    Raises:
      ConfigError: it is not the folder of a run, or a file is damaged.
    """
    self.path = path
    if not (path / 'config.json').is_file():
      raise ConfigError(
        f"--workdir='{path}' is not the folder of a run: it has no config.json"
      )
    self.config = _json(path / 'config.json')
    evaluation = path / 'eval.json'
    self.evaluation = _json(evaluation) if evaluation.is_file() else {}
    self.log = _lines(path / 'log.jsonl')

  @property
  def kind(self) -> str:
    return 'generator' if 'backbone' in self.config else 'tokenizer'

  @property
  def headline(self) -> dict[str, Any]:
    return self.evaluation.get('headline', {})

  def pictures(self) -> dict[str, pathlib.Path]:
    """Name -> the newest picture of that name, those without a step last."""
    found: dict[str, tuple[int, pathlib.Path]] = {}
    for file in sorted((self.path / 'pictures').glob('*.png')):
      match = re.fullmatch(r'(.+?)_(\d+)', file.stem)
      name, step = (match[1], int(match[2])) if match else (file.stem, -1)
      if step >= found.get(name, (-2, file))[0]:
        found[name] = step, file
    order = sorted(found.items(), key=lambda item: (item[1][0] < 0, item[0]))
    return {name: file for name, (_, file) in order}

  def grids(self) -> dict[str, pathlib.Path]:
    """Name -> grid of `arvision sample`."""
    files = sorted((self.path / 'samples').glob('*/grid.png'))
    return {file.parent.name: file for file in files}


def _json(path):
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ConfigError(f'{path} is damaged: {error}') from error


def _lines(path):
  """Lines of a JSONL; a last line that is torn is left out."""
  if not path.is_file():
    return []
  lines = []
  for text in path.read_text(encoding='utf-8').splitlines():
    try:
      lines.append(json.loads(text))
    except ValueError:
      continue
  return [line for line in lines if isinstance(line, dict) and 'step' in line]


def curves(log: Sequence[Mapping]) -> dict[str, dict[str, list]]:
  """Chart -> series -> (step, value) points, the telling charts first.

  A metric is `[held_out/[ema_<decay>/]]figure[/part]`. Training and held-out
  values of a figure share a chart; its parts (scales, steps, networks) share
  another, for training alone.
  """
  charts: dict[str, dict[str, list]] = {}
  for line in log:
    for name, value in line.items():
      place = _place(name)
      if place is None or not isinstance(value, (int, float)):
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
  """A metric's name -> (chart, series); None for what makes no curve."""
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
  """What summary.json holds; null where nothing was measured.

  A figure that several folders have is taken from the last one.

  Args:
    folders: the runs.
    seconds: of everything; None takes the steps of all runs by their logs,
      and their evaluations. Compilation and saving are not in there.
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
    'codebook_usage',
    'codebook_perplexity',
    'codebook_reach',
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
  """Seconds that the steps took, by the examples and images/s of the lines."""
  total, before = 0.0, 0.0
  for line in log:
    speed = line.get('images_per_second', 0.0)
    if speed > 0:
      total += (line['examples'] - before) / speed
      before = line['examples']
  return total


def render(
  folders: Sequence[Folder], summary: Mapping[str, Any], title: str = ''
) -> str:
  """The page."""
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
  lead = f'{names}, {_minutes(summary["seconds"])}'
  source = folders[-1].config.get('data', {}).get('source')
  title = title or (
    f'arvision: {dataset_name(source)}' if source else 'arvision'
  )
  return page.page(title, lead, parts)


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
      page.figure(page.picture(path, name, width=860), caption=name)
      for name, path in grids.items()
    ]
  )
  return page.section('Samples', content)


def _pictures(folder):
  content = page.grid(
    [
      page.figure(
        page.picture(path, name, width=420), name.replace('_', ' '), path.name
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
  note = 'Share of the codebook that held-out images use, scale by scale.'
  if any(limit < 1 for limit in limits.values()):
    note += ' The mark is the most that so few tokens could use.'
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
  if folder.evaluation.get('ema'):
    facts.append(f'EMA {folder.evaluation["ema"]}')
  options = folder.evaluation.get('sampling', {})
  facts += [f'{k} {v}' for k, v in options.items() if v is not None]
  note = ', '.join(facts) + '. The name of a figure says how it was measured.'
  return page.section(
    f'Figures of the {folder.kind}',
    page.table(rows, ('figure / protocol', 'value')),
    note,
  )


def _minutes(seconds):
  if not seconds or not math.isfinite(seconds):
    return 'time not known'
  return f'{int(seconds // 60)} min {int(seconds % 60)} s in all'
