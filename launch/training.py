"""Trains and evaluates the runs of the tables in docs, each once."""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable

from arvision.evals.protocol import check_same_figures


class Runs:
  """Runs of small configs in one folder, each trained and evaluated once.

  Attributes:
    root: the folder.
  """

  def __init__(self, root: pathlib.Path):
    self.root = root
    self._first: tuple[pathlib.Path, dict] | None = None
    root.mkdir(parents=True, exist_ok=True)

  def folder(self, config: str) -> pathlib.Path:
    return self.root / slug(config)

  def train(self, config: str, *flags: str, name: str = '') -> None:
    """Trains a config to its end, and records the time.

    Args:
      config: name of the config.
      *flags: flags of `arvision train`.
      name: name of the run; '': that of the config.
    """
    folder = self.folder(name or config)
    note = folder.with_suffix('.seconds.json')
    spent = json.loads(note.read_text()) if note.exists() else {'seconds': 0}
    if spent.get('done'):
      return
    begin = time.time()

    def keep(done):
      seconds = spent['seconds'] + time.time() - begin
      note.write_text(json.dumps({'seconds': seconds, 'done': done}))

    # Records the time all along, so that the time of a killed run counts.
    arvision(
      'train',
      f'--config={config}',
      f'--workdir={folder}',
      *flags,
      meanwhile=lambda: keep(False),
    )
    keep(True)

  def seconds(self, name: str) -> float:
    """Training time of a run, start and compilation included."""
    note = self.folder(name).with_suffix('.seconds.json')
    return json.loads(note.read_text())['seconds']

  def grid(self, name: str, *flags: str, label: str = 'grid') -> pathlib.Path:
    """Samples ten images of every class.

    Args:
      name: name of the run.
      *flags: flags of `arvision sample` that change the config.
      label: name of the samples with these flags.

    Returns:
      path of the grid.
    """
    folder = self.folder(name)
    file = folder / 'samples' / label / 'grid.png'
    if not file.exists():
      arvision(
        'sample',
        f'--workdir={folder}',
        '--labels=all',
        '--number=10',
        '--batch_size=100',
        f'--name={label}',
        *flags,
      )
    return file

  def evaluate(
    self, name: str, samples: int, *flags: str, label: str = 'eval'
  ) -> dict[str, float]:
    """The headline figures of `arvision eval`; see `grid`.

    Raises:
      ConfigError: the Fréchet distance has another protocol than that of the
        first evaluation: a table cannot show both.
    """
    folder = self.folder(name)
    file = folder / f'{label}.json'
    if not file.exists():
      arvision(
        'eval',
        f'--workdir={folder}',
        f'--samples={samples}',
        f'--output={file}',
        *flags,
      )
    found = json.loads(file.read_text())
    path, first = self._first = self._first or (file, found)
    check_same_figures(first, found, (str(path), str(file)), ['frechet'])
    return found['headline']


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


def slug(config: str) -> str:
  """The name of a config as a file name."""
  return config.replace('/', '_').replace(':', '_')


def arvision(*args: str, meanwhile: Callable[[], None] = lambda: None) -> None:
  """Runs `arvision`.

  Args:
    *args: command and flags.
    meanwhile: called every few seconds.

  Raises:
    subprocess.CalledProcessError: the command failed.
  """
  keeper = str(pathlib.Path(__file__).with_name('cpu.sh'))
  command = ['bash', keeper, sys.executable, '-m', 'arvision', *args]
  print('\n== arvision', *args, flush=True)
  with subprocess.Popen(command) as process:
    while process.returncode is None:
      meanwhile()
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, command)


def parameters(folder: pathlib.Path) -> int:
  """Number of parameters of a run, from its parameters.txt."""
  text = (folder / 'parameters.txt').read_text()
  (line,) = (x for x in text.splitlines() if x.startswith('Total'))
  return int(line.split(':')[1].split()[0].replace(',', ''))


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
