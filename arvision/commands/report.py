"""Writes an HTML report and a JSON summary of runs."""

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
  folders = [pathlib.Path(f) for f in flags.workdir]
  output = pathlib.Path(flags.output or folders[-1])
  flag = '--output' if flags.output else '--workdir'
  targets.check_folder(output, flag)
  found = [Folder(f) for f in folders]
  summary = summarise(found, flags.seconds)
  summary['paths']['report'] = str(output / 'report.html')
  page_text = render(found, summary, flags.title)
  targets.write_text(output / 'report.html', page_text, flag)
  text = json.dumps(summary, indent=2) + '\n'
  targets.write_text(output / 'summary.json', text, flag)
  faults = [f'  {fault}' for folder in found for fault in folder.faults]
  if faults:
    print(f'left out:\n{differences.shortened(faults)}', file=sys.stderr)
  print(f'{output / "report.html"}\n{output / "summary.json"}')


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
