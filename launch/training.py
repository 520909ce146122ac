"""Runs that the tables of docs are made of: trained and measured once each."""

import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable


class Runs:
  """Runs of small configs in one folder, each done once.

  Attributes:
    root: of the folder.
  """

  def __init__(self, root: pathlib.Path):
    self.root = root
    root.mkdir(parents=True, exist_ok=True)

  def folder(self, config: str) -> pathlib.Path:
    return self.root / slug(config)

  def train(self, config: str, *flags: str, name: str = '') -> None:
    """Trains a config, to its end, and notes how long it took.

    Args:
      config: its name.
      *flags: of `arvision train`.
      name: of the run; that of the config by default.
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

    # Noted as it goes, so that the time of a run that is killed counts.
    arvision(
      'train',
      f'--config={config}',
      f'--workdir={folder}',
      *flags,
      meanwhile=lambda: keep(False),
    )
    keep(True)

  def seconds(self, name: str) -> float:
    """How long a run was trained, start and compilation included."""
    note = self.folder(name).with_suffix('.seconds.json')
    return json.loads(note.read_text())['seconds']

  def grid(self, name: str, *flags: str, label: str = 'grid') -> pathlib.Path:
    """Ten samples of every class.

    Args:
      name: of the run.
      *flags: of `arvision sample`, changes of the config.
      label: of what is drawn with such changes.

    Returns:
      The picture.
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
    """The headline figures of `arvision eval`; see `grid`."""
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
    return json.loads(file.read_text())['headline']


def slug(config: str) -> str:
  """The name of a config as that of a folder or of a picture."""
  return config.replace('/', '_').replace(':', '_')


def arvision(*args: str, meanwhile: Callable[[], None] = lambda: None) -> None:
  """Runs a command of this installation.

  Args:
    *args: of the command.
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
  """Of a run, by the last line of its list."""
  text = (folder / 'parameters.txt').read_text()
  (line,) = (x for x in text.splitlines() if x.startswith('Total'))
  return int(line.split(':')[1].split()[0].replace(',', ''))


def where() -> str:
  """Processor, cores and version of JAX, for the head of a table."""
  import jax

  return f'{processor()}, {os.cpu_count()} cores, jax {jax.__version__}'


def processor() -> str:
  """What the machine computes on."""
  import jax

  device = jax.devices()[0]
  if device.platform != 'cpu':
    return device.device_kind
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    return next(x.split(':')[1].strip() for x in lines if 'model name' in x)
  except (OSError, StopIteration):
    return platform.processor() or platform.machine()
