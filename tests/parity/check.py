"""Our parts against the recorded numbers of the official implementations.

    python -m tests.parity.check tests/parity/cases/*

takes folders with `meta.json` and `io.npz`, builds the model that each is of,
brings its weights in through the importer of released files, and prints a line
for every recorded output: the largest difference, as a number and as a share of
the largest number of the array, and whether that is within the case's limit.
Whole numbers must be equal. The exit code is 1 if an array fails.

An option of `constructor`, `config`, `generation` or `optimizer` that our parts
do not have, or that nothing here reads, is named in a line of its own or in
those of the arrays that depend on it. Such arrays are not compared, unless they
agree all the same.
"""

import argparse
import dataclasses
import importlib
import pathlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from tests.parity import systems
from tests.parity.case import Case, Part, System
from tests.parity.stated import NotCompared

MODULES = [
  importlib.import_module(f'{systems.__name__}.{found.name}')
  for found in pkgutil.iter_modules(systems.__path__)
]


def _named(table: str) -> dict[str, System]:
  """Official class -> system, of all modules of `systems`."""
  tables = (getattr(module, table, {}) for module in MODULES)
  return {k: v for found in tables for k, v in found.items()}


FORWARD, TRAINING = _named('SYSTEMS'), _named('TRAINING')
# By the file of the official functions.
FUNCTIONS = _named('FUNCTIONS')
# By the name of a case that names no class.
CASES = _named('CASES')


@dataclasses.dataclass(frozen=True)
class Result:
  """One array of a case.

  Attributes:
    name: of the array.
    verdict: 'ok', 'FAIL' or 'not compared'.
    text: the numbers, or why there are none.
  """

  name: str
  verdict: str
  text: str


def results(case: Case) -> Iterator[Result]:
  """Compares all outputs of a case, from shallow to deep."""
  kinds = TRAINING if 'optimizer' in case.meta else FORWARD
  official = case.meta.get('constructor', {}).get('cls')
  if official is None and 'code_path' in case.meta:
    files = case.meta['code_path'].partition(':')[0]
    kinds, official = FUNCTIONS, files.split()[0]
  if official is None and case.meta.get('case') in CASES:
    kinds, official = CASES, case.meta['case']
  if official not in kinds:
    reason = f'{official} is not supported'
    if official is None:
      reason = 'meta.json states no constructor'
    for name in case.io:
      yield Result(name, 'not compared', reason)
    return
  system = kinds[official]
  limits = system.limits or _share_of_largest
  inputs = system.inputs | {f'{run}_noise' for run in case.runs}
  wanted = {
    k: v
    for k, v in case.io.items()
    if k not in inputs and not k.startswith('noise_')
  }
  found = []
  verdict, problem = 'not compared', 'nothing of ours to compare it with'
  try:
    for name, got in system.outputs(case):
      if name in wanted:
        found.append(compare(name, got, wanted.pop(name), limits(case, name)))
    unread = _unread(case)
  # A driver that stops has not come to all options of the generation; those of
  # the constructor it reads first.
  except NotCompared as refusal:
    problem, unread = str(refusal), case.args.unread if found else []
  except Exception as error:  # of whatever kind: further cases are to follow
    verdict, problem = 'FAIL', f'{type(error).__name__}: {error}'
    unread = case.args.unread
  found += [
    Result(name, verdict, system.absent.get(name, problem)) for name in wanted
  ]
  for result in found:
    options = [o for o in unread if _bears_on(o, result.name)]
    if result.verdict == 'FAIL' and options:
      text = f'{result.text}; not read: {", ".join(options)}'
      result = Result(result.name, 'not compared', text)
    yield result
  for option in unread:
    yield Result(option, 'not compared', 'not read by the driver')


def _unread(case):
  """'section.key' of the options that no driver read."""
  stated = [case.args, case.config, case.optimizer, *case.runs.values()]
  return [option for section in stated for option in section.unread]


def _bears_on(option, name):
  """Whether an array may depend on an option."""
  return not option.startswith('generation') or name.split('_')[0] == 'gen'


def _share_of_largest(case, name):
  return case.limit(name) * np.abs(case.io[name]).max()


def compare(name: str, got: Any, wanted: np.ndarray, limit: Any) -> Result:
  """One array, or a `Part` of it, against its recording."""
  if isinstance(got, NotCompared):
    return Result(name, 'not compared', str(got))
  text = ''
  if isinstance(got, Part):
    size, wanted = wanted.size, wanted[got.index]
    limit = limit[got.index] if np.ndim(limit) else limit
    text, got = f' ({wanted.size} of {size} entries)', got.values
  got = np.asarray(got)
  if got.shape != wanted.shape:
    return Result(name, 'FAIL', f'shape {got.shape}, recorded {wanted.shape}')
  if not np.issubdtype(wanted.dtype, np.floating):
    differ = int((got != wanted).sum())
    text = f'{differ} of {wanted.size} differ{text}'
    return Result(name, 'FAIL' if differ else 'ok', text)
  error = np.abs(np.float64(got) - wanted)
  share = error.max() / max(np.abs(wanted).max(), 1e-30)
  good = bool(np.all(error <= limit))  # a NaN is not within any limit
  text = f'max abs {error.max():.1e}  of the largest {share:.1e}{text}'
  return Result(name, 'ok' if good else 'FAIL', text)


def main(argv: Sequence[str]) -> int:
  """Prints the comparison; 1 where an array fails."""
  parser = argparse.ArgumentParser(
    prog='python -m tests.parity.check',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('folders', nargs='+', type=pathlib.Path, metavar='DIR')
  folders = parser.parse_args(argv).folders
  lost = [str(f) for f in folders if not (f / 'meta.json').is_file()]
  if lost:
    print(f'no meta.json in {", ".join(lost)}', file=sys.stderr)
    return 2
  # The limits are those of full float32 products.
  jax.config.update('jax_default_matmul_precision', 'highest')
  counts = dict.fromkeys(('ok', 'FAIL', 'not compared'), 0)
  for folder in folders:
    for result in results(Case(folder)):
      counts[result.verdict] += 1
      name = f'{folder.name}/{result.name}'
      print(f'{name:<42} {result.text:<48} {result.verdict}', flush=True)
  print(
    f'{sum(counts.values())} arrays, {counts["FAIL"]} failed, '
    f'{counts["not compared"]} not compared'
  )
  return 1 if counts['FAIL'] else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
