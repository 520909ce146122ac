"""Compares runs: what differs in their configs, their figures and curves.

    arvision compare runs/var/digits runs/rar/digits

Prints a table, and writes compare.html.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator, Sequence

from arvision.commands import common
from arvision.errors import ConfigError
from arvision.runs import compare, compare_text, targets
from arvision.runs.folder import Folder
from arvision.runs.variants import group
from arvision.training import differences


def main(argv: list[str]) -> None:
  """`arvision compare`: prints a table and writes compare.html."""
  flags, overrides = common.parse(parser(), argv)
  if overrides:
    raise ConfigError(
      f"'--config.{overrides[0]}': arvision compare takes no overrides"
    )
  paths = [pathlib.Path(f) for f in flags.workdir]
  found = [Folder(path) for path in _runs_in(paths)]
  if len(found) < 2:
    raise ConfigError(
      f'wanted two runs or more, got {found[0].path}; name another workdir, or '
      'a folder of runs'
    )
  compare.check_kinds(found)
  output = pathlib.Path(flags.output or paths[-1])
  targets.check_folder(output, '--output')
  variants = group(found)
  file = output / 'compare.html'
  targets.write_text(file, compare.render(variants, flags.title), '--output')
  if faults := [f'  {fault}' for folder in found for fault in folder.faults]:
    print(f'left out:\n{differences.shortened(faults)}', file=sys.stderr)
  print(compare_text.render(variants, compare.columns(variants)))
  print(f'\n{file}')


def _runs_in(paths: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
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
  flags = common.parser('compare', __doc__)
  flags.add_argument(
    'workdir',
    nargs='+',
    metavar='WORKDIR',
    help='folder of a run, or of several runs. The first is the one that the '
    'others are compared with. Runs that differ in the seed alone are one row',
  )
  flags.add_argument(
    '--output',
    metavar='DIR',
    help='output folder of compare.html; default: the last workdir',
  )
  flags.add_argument('--title', default='', help='title of the page')
  return flags
