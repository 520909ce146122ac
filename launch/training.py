"""What the scripts that train the runs of the tables in docs share."""

import argparse
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence

from arvision.sweeps.pool import Pool
from arvision.sweeps.runs import Job, Runs
from arvision.sweeps.status import Plain

# Gives a command an allocator.
_KEEPER = ('bash', str(pathlib.Path(__file__).with_name('cpu.sh')))


def open_runs(root: pathlib.Path) -> Runs:
  """The runs of a folder."""
  return Runs(root, _KEEPER)


def complete(runs: Runs, jobs: Sequence[Job]) -> None:
  """Runs the unfinished jobs, one after another.

  Raises:
    SystemExit: some failed; with their names.
  """
  failed = Pool(runs, jobs, Plain(runs)).run()
  if failed:
    sys.exit('\n'.join(f'{name}: {why}' for name, why in failed.items()))


def parser(
  doc: str | None, output: str, docs: str = 'docs'
) -> argparse.ArgumentParser:
  """The flags --output (folder of runs) and --docs (folder of pages)."""
  flags = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name, default in (('--output', output), ('--docs', docs)):
    flags.add_argument(name, type=pathlib.Path, default=pathlib.Path(default))
  return flags


def arvision(*args: str) -> None:
  """Runs `arvision`.

  Raises:
    subprocess.CalledProcessError: the command failed.
  """
  print('\n== arvision', *args, flush=True)
  command = [*_KEEPER, sys.executable, '-m', 'arvision', *args]
  subprocess.run(command, check=True)


def where() -> str:
  """Processor, cores and JAX version, for the head of a table."""
  import jax

  return f'{processor()}, {os.cpu_count()} cores, jax {jax.__version__}'


def processor() -> str:
  """The name of the accelerator or CPU."""
  import jax

  device = jax.devices()[0]
  if device.platform != 'cpu':
    return device.device_kind
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    return next(x.split(':')[1].strip() for x in lines if 'model name' in x)
  except (OSError, StopIteration):
    return platform.processor() or platform.machine()
