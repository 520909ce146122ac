"""Writes an HTML report and a JSON summary of runs, or compares runs.

    arvision report --workdir=runs/var/digits_tokenizer \\
      --workdir=runs/var/digits --output=runs/var

The page has curves, pictures, figures and configs, and needs no other file.
"""

import argparse
import json
import pathlib
import sys

from arvision.commands import common
from arvision.errors import ConfigError
from arvision.ranges import AtLeast0, number
from arvision.runs import compare, targets
from arvision.runs.folder import Folder
from arvision.runs.report import render, summarise
from arvision.runs.variants import group
from arvision.training import differences


def main(argv: list[str]) -> None:
  """`arvision report`: writes report.html and summary.json, or compare.html."""
  flags, _ = common.parse(parser(), argv)
  folders = [pathlib.Path(f) for f in flags.workdir]
  output = pathlib.Path(flags.output or folders[-1])
  flag = '--output' if flags.output else '--workdir'
  targets.check_folder(output, flag)
  write = _compare if flags.compare else _report
  found, written = write(folders, output, flag, flags)
  faults = [f'  {fault}' for folder in found for fault in folder.faults]
  if faults:
    print(f'left out:\n{differences.shortened(faults)}', file=sys.stderr)
  print('\n'.join(map(str, written)))


def _report(paths, output, flag, flags):
  """Writes the report of runs; returns the runs and the files."""
  found = [Folder(path) for path in paths]
  files = (output / 'report.html', output / 'summary.json')
  summary = summarise(found, flags.seconds)
  summary['paths']['report'] = str(files[0])
  targets.write_text(files[0], render(found, summary, flags.title), flag)
  targets.write_text(files[1], json.dumps(summary, indent=2) + '\n', flag)
  return found, files


def _compare(paths, output, flag, flags):
  """Writes a page that compares runs; returns the runs and the file."""
  found = [Folder(path) for path in _runs_in(paths)]
  if len(found) < 2:
    raise ConfigError(
      f'--compare: wanted two runs or more, got {found[0].path}; repeat '
      '--workdir, or name a folder of runs'
    )
  variants = group(found)
  if len(variants) == 2:
    compare.check_protocols(variants)
  file = output / 'compare.html'
  targets.write_text(file, compare.render(variants, flags.title), flag)
  return found, (file,)


def _runs_in(paths):
  """Runs, and the runs inside folders that are none."""
  for path in paths:
    inside = sorted(p.parent for p in path.glob('*/config.json'))
    if (path / 'config.json').exists() or not inside:
      yield path
      continue
    generators = [p for p in inside if Folder(p).kind == 'generator']
    # Tokenizers that lie beside their generators are not variants of them.
    yield from generators or inside


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('report', __doc__)
  flags.add_argument(
    '--workdir',
    action='append',
    required=True,
    metavar='DIR',
    help='folder of a run; repeat the flag for several runs, tokenizer first',
  )
  flags.add_argument(
    '--compare',
    action='store_true',
    help='compare the runs, or all runs inside a folder: a row for every '
    'variant, a column for every metric; runs that differ in the seed alone '
    'are one variant',
  )
  flags.add_argument(
    '--output', metavar='DIR', help='output folder; default: the last workdir'
  )
  flags.add_argument('--title', default='', help='title of the page')
  flags.add_argument(
    '--seconds',
    type=number(AtLeast0),
    help='wall time for the summary; default: computed from the logs',
  )
  return flags
