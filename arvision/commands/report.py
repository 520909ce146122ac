"""Writes an HTML report and a JSON summary of runs.

    arvision report --workdir=runs/var/digits_tokenizer \\
      --workdir=runs/var/digits --output=runs/var

The page has curves, pictures, figures and configs, and needs no other file.
"""

import argparse
import json
import pathlib
import sys

from arvision.commands import common
from arvision.ranges import AtLeast0, number
from arvision.runs import targets
from arvision.runs.folder import Folder
from arvision.runs.report import render, summarise
from arvision.training import differences


def main(argv: list[str]) -> None:
  """`arvision report`: writes report.html and summary.json."""
  flags, _ = common.parse(parser(), argv)
  found = [Folder(pathlib.Path(f)) for f in flags.workdir]
  output = pathlib.Path(flags.output or flags.workdir[-1])
  flag = '--output' if flags.output else '--workdir'
  targets.check_folder(output, flag)
  files = (output / 'report.html', output / 'summary.json')
  summary = summarise(found, flags.seconds)
  summary['paths']['report'] = str(files[0])
  targets.write_text(files[0], render(found, summary, flags.title), flag)
  targets.write_text(files[1], json.dumps(summary, indent=2) + '\n', flag)
  if faults := [f'  {fault}' for folder in found for fault in folder.faults]:
    print(f'left out:\n{differences.shortened(faults)}', file=sys.stderr)
  print('\n'.join(map(str, files)))


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
    '--output', metavar='DIR', help='output folder; default: the last workdir'
  )
  flags.add_argument('--title', default='', help='title of the page')
  flags.add_argument(
    '--seconds',
    type=number(AtLeast0),
    help='wall time for the summary; default: computed from the logs',
  )
  return flags
