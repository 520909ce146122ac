"""Evaluates a run, or scores a folder or an .npz file of images.

    arvision eval --workdir=runs/var/digits --samples=1000 --report
    arvision eval --workdir=runs/var/digits --sweep=guidance=1,1.5,2
    arvision eval --images=samples.npz --reference=imagenet256.npz \\
      --extractor=inception-adm:inception.pth

Every score carries the protocol by which it was computed.
"""

import argparse
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax

from arvision.commands import common, run_flags
from arvision.errors import ConfigError
from arvision.evals import cache
from arvision.evals.base import Metrics
from arvision.evals.protocol import headline
from arvision.evals.scoring import FIGURES, USUAL, Scoring
from arvision.parallel import host
from arvision.ranges import Batch, Many, number
from arvision.runs import sweep, targets
from arvision.runs.evaluate import configured, evaluate, missing, score
from arvision.runs.trained import TrainedRun
from arvision.training import pictures
from arvision.training import workdir as workdirs

# Flags of both kinds of evaluation, and those of --images alone.
_COMMON = (
  *('images', 'workdir', 'output', 'batch_size', 'seed', 'debug', 'ignored'),
  *('extractor', 'reference', 'figures', 'report'),
)
_OF_IMAGES = ('order',)


def main(argv: list[str]) -> None:
  """`arvision eval`: writes eval.json and prints a table."""
  known = parser()
  flags, overrides = common.parse(known, argv)
  _check(known, flags, overrides)
  if flags.images is not None:
    _of_images(flags)
  else:
    _of_run(known, flags, overrides)
  if flags.report and jax.process_index() == 0:
    _report(flags)


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = run_flags.parser('eval', __doc__, required=False)
  flags.add_argument(
    '--which',
    default='',
    metavar='LIST',
    help='names of config.evals, separated by commas; a config without evals '
    'has reconstruction and generation; default: all that the run supports',
  )
  flags.add_argument(
    '--samples',
    '--number',
    type=number(Many),
    help='number of samples; default: that of config.evals (1000 for '
    'generation, 50000 for FID)',
  )
  flags.add_argument(
    '--batch_size',
    type=number(Batch),
    help='images per call; default: that of config.evals, or up to 100 as fit '
    'into memory',
  )
  flags.add_argument(
    '--output',
    type=pathlib.Path,
    metavar='FILE',
    help='JSON file; default: <workdir>/eval.json, which reports read, '
    '<folder>/eval.json, or <file>.eval.json',
  )
  flags.add_argument(
    '--report',
    action='store_true',
    help='also write report.html there, with the tokenizer of a generator',
  )
  flags.add_argument(
    '--classifiers',
    type=pathlib.Path,
    default=None,
    metavar='DIR',
    help='cache of trained classifiers; default: ~/.cache/arvision/classifiers',
  )
  group = flags.add_argument_group('distances to a reference (FID and others)')
  group.add_argument(
    '--images',
    type=pathlib.Path,
    metavar='PATH',
    help='a folder of images of one size, or an .npz file with arr_0, instead '
    'of the samples of a run',
  )
  run_flags.add_network(group)
  group.add_argument(
    '--reference',
    metavar='PATH',
    help='file of `arvision reference`, of the ADM evaluator or of '
    'pytorch-fid, or a folder of images; default for runs: their training '
    'images',
  )
  group.add_argument(
    '--figures',
    type=lambda text: tuple(text.split(',')),
    metavar='LIST',
    help=f'some of {",".join(FIGURES)}; default: all but fid_infinity that the '
    'network has',
  )
  group.add_argument(
    '--order',
    choices=('shuffle', 'file'),
    help='order of --images for the Inception score: shuffle them by --seed, '
    'or take that of the file, which must be random',
  )
  run_flags.add_sampling(flags)
  run_flags.add_sweep(flags)
  return flags


def table(metrics: Metrics) -> str:
  """Names and values in two columns."""
  width = max((len(name) for name in metrics), default=0)
  return '\n'.join(
    f'{name:<{width}}  {value:>10.4f}' for name, value in metrics.items()
  )


def _check(known, flags, overrides):
  """Refuses flags that the evaluation would ignore."""
  if (flags.workdir is None) == (flags.images is None):
    raise ConfigError('wanted --workdir=DIR or --images=PATH, one of them')
  given = {
    name
    for name, value in vars(flags).items()
    if value != known.get_default(name)
  }
  if flags.images is None:
    wrong, other = given & {*_OF_IMAGES}, '--images'
  else:
    wrong, other = given - {*_COMMON, *_OF_IMAGES}, '--workdir'
    wrong |= {f'config.{text.partition("=")[0]}' for text in overrides}
  if wrong:
    raise ConfigError(f'--{min(wrong)} is for {other}; leave it out')
  if flags.report and (flags.output or not _folder(flags).is_dir()):
    raise ConfigError(
      '--report: a report is made of the eval.json of a folder; leave out '
      '--report, or --output and files'
    )
  if flags.images is not None and not flags.extractor:
    raise ConfigError(
      '--images: no score is available without a network; give '
      '--extractor=inception-adm:FILE'
    )


def _folder(flags) -> pathlib.Path:
  return pathlib.Path(flags.images or flags.workdir)


def _report(flags):
  """Writes report.html, of the tokenizer of a generator too."""
  from arvision.commands import report  # imports matplotlib

  folders = [_folder(flags)]
  if flags.workdir:
    config = workdirs.load_config(flags.workdir, allow=None)
    tokenizer = config.get('frozen', {}).get('tokenizer')
    if tokenizer and (pathlib.Path(tokenizer) / workdirs.CONFIG).is_file():
      folders.insert(0, tokenizer)
  report.main([f'--workdir={folder}' for folder in folders])


def _of_images(flags: argparse.Namespace) -> None:
  path = flags.images
  extractor, fields = run_flags.network(flags.extractor)
  figures = flags.figures or USUAL
  scoring = Scoring(
    figures=figures,
    shuffle=flags.order == 'shuffle',
    seed=flags.seed,
    **fields,
  )
  if not flags.reference and figures != ('inception_score',):
    raise ConfigError(
      '--images: wanted --reference=PATH to compare with, or '
      '--figures=inception_score, which needs none'
    )
  beside = (
    path / 'eval.json' if path.is_dir() else path.with_suffix('.eval.json')
  )
  output, flag = (
    flags.output or beside,
    '--output' if flags.output else '--images',
  )
  targets.check_file(output, flag)
  host.use_compilation_cache()
  host.initialize()
  protocols: dict[str, Any] = {}
  start = time.time()
  metrics = score(
    path,
    scoring,
    extractor,
    flags.reference or '',
    flags.batch_size,
    'file' if flags.order == 'file' else '',
    note=protocols.__setitem__,
  )
  record = {
    'images': str(path),
    'headline': headline(metrics),
    'metrics': metrics,
    'protocols': protocols,
    'seconds': time.time() - start,
  }
  _finish(record, output, flag)


def _of_run(known, flags: argparse.Namespace, overrides: list[str]) -> None:
  path = flags.output or pathlib.Path(flags.workdir) / 'eval.json'
  flag = '--output' if flags.output else '--workdir'
  points = list(sweep.product(run_flags.sweep(known, flags.sweep)))
  fields: dict[str, Any] = {
    name: getattr(flags, name)
    for name in ('samples', 'batch_size', 'reference', 'figures')
  }
  if flags.extractor:
    extractor, own = run_flags.network(flags.extractor)
    fields |= {'extractor': extractor, **own}
  records: list[dict[str, Any]] = []
  weights: Any = None
  for settings in points:
    here = argparse.Namespace(**{**vars(flags), **settings})
    if weights != (here.ema, here.step):
      weights = here.ema, here.step
      run, first = run_flags.load(here, overrides, several=True), None
      _check_targets(flags, run, path, flag)
    if len(points) > 1:
      host.say(f'\n{sweep.name_of(settings)}')
    # What does not sample is the same for all settings of the sampler.
    pictured: list[str] = []
    show = _show(flags, path, points, pictured)
    record = _record(run, here, fields, first, show)
    first = first or record
    records.append({'settings': settings, **record, 'pictures': pictured})
  if len(records) == 1:
    _finish(records[0], path, flag)
    return
  sweep.check(records)
  chosen = records[sweep.best(records)]
  host.say(f'\n{sweep.table(records)}')
  if jax.process_index() == 0:
    sweep.write(_beside(flags, path), records, flag)
  _finish(
    {**chosen, 'chosen': sweep.reason(records), 'sweep': records}, path, flag
  )


def _check_targets(flags, run, path, flag):
  targets.check_file(path, flag)
  if flags.sweep:
    for suffix in ('.json', '.svg'):
      targets.check_file(_beside(flags, path).with_suffix(suffix), flag)
  if run.model is not None:
    targets.check_folder(cache.folder_of(flags.classifiers), '--classifiers')


def _beside(flags, path) -> pathlib.Path:
  """Path of the files of a sweep, without suffix."""
  return path.with_name(f'{path.stem}_sweep' if flags.output else 'sweep')


def _show(flags, path, points, shown) -> Callable[[str, Any], None]:
  """Writes pictures of evaluators, but not of every setting of a sweep.

  Their names go to the list `shown`.
  """

  def show(name, rows):
    if len(points) > 1:
      return
    shown.append(name)
    if jax.process_index() == 0:
      file = path.with_suffix('') / f'{name}.png'
      with targets.writing(file, '--output' if flags.output else '--workdir'):
        file.parent.mkdir(exist_ok=True)
        columns = len(next(iter(rows.values())))
        pictures.save(file, pictures.sheet(rows, columns))

  return show


def _record(
  run: TrainedRun,
  flags: argparse.Namespace,
  fields: dict[str, Any],
  before: dict[str, Any] | None,
  show: Callable[[str, Any], None],
) -> dict[str, Any]:
  """The content of eval.json for one setting."""
  host.say(f'evaluating {run_flags.weights_of(run)}')
  which = flags.which.split(',') if flags.which else None
  protocols = dict(before['protocols']) if before else {}
  metrics = dict(before['metrics']) if before else {}
  start = time.time()
  metrics |= evaluate(
    run,
    which=which,
    sampling=run_flags.sampling(flags),
    classifiers=flags.classifiers,
    note=protocols.__setitem__,
    show=show,
    sampled_only=before is not None,
    **fields,
  )
  # What --which names and is not available was refused.
  lacking = {} if which else missing(configured(run, **fields))
  for name, why in lacking.items():
    host.say(f'{name}: {why}')
  return {
    'step': int(run.step),
    'ema': run.ema,
    'sampling': {**run_flags.sampling(flags), 'samples': flags.samples},
    'sampler': workdirs.to_json(run.config).get('sampler'),
    'headline': headline(metrics),
    'metrics': metrics,
    'protocols': protocols,
    'not_available': lacking,
    'seconds': time.time() - start,
  }


def _finish(record: dict[str, Any], path: pathlib.Path, flag: str) -> None:
  host.say(table(record['metrics']))
  if jax.process_index() == 0:
    targets.write_text(path, json.dumps(record, indent=2) + '\n', flag)
  host.say(f'\n{path}')
