"""Runs in one folder, each trained, sampled and evaluated once."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

from arvision import atomic
from arvision.errors import ConfigError
from arvision.evals.protocol import check_same_figures
from arvision.sweeps.points import slug


@dataclasses.dataclass(frozen=True)
class Step:
  """A command of arvision and the file that it makes.

  Attributes:
    words: command and flags.
    file: the step is done once it exists; None for a training, which says
      itself when it is.
  """

  words: tuple[str, ...]
  file: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Job:
  """A run: its training, and what is made of it.

  Attributes:
    name: name of the run.
    train: flags of `arvision train`, without --workdir.
    needs: names of the runs that must be trained before.
    after: steps after the training.
  """

  name: str
  train: tuple[str, ...]
  needs: tuple[str, ...] = ()
  after: tuple[Step, ...] = ()


class Runs:
  """The runs of a folder, what they took and what came out.

  Attributes:
    root: the folder.
    before: a program that `arvision` is started with, and its arguments.
  """

  def __init__(self, root: pathlib.Path, before: Sequence[str] = ()):
    """Names the folder; creates nothing."""
    self.root = root
    self.before = tuple(before)
    self._first: tuple[pathlib.Path, dict] | None = None

  def folder(self, name: str) -> pathlib.Path:
    """The workdir of a run, or of the run with the name of a config."""
    return self.root / slug(name)

  def command(self, words: Sequence[str]) -> list[str]:
    """The command line of a process."""
    return [*self.before, sys.executable, '-m', 'arvision', *words]

  def training(self, job: Job) -> Step:
    """The first step of a job."""
    folder = self.folder(job.name)
    return Step(('train', f'--workdir={folder}', *job.train))

  def evaluation(self, name: str, *flags: str, label: str = 'eval') -> Step:
    """A step that evaluates a run.

    Args:
      name: name of the run.
      *flags: flags of `arvision eval`.
      label: name of the figures with these flags.
    """
    folder = self.folder(name)
    file = folder / f'{label}.json'
    words = ('eval', f'--workdir={folder}', f'--output={file}', *flags)
    return Step(words, file)

  def sampling(self, name: str, *flags: str, label: str = 'grid') -> Step:
    """A step that samples ten images of every class, see `evaluation`."""
    folder = self.folder(name)
    words = (
      *('sample', f'--workdir={folder}', '--labels=all', '--number=10'),
      *('--batch_size=100', f'--name={label}', *flags),
    )
    return Step(words, self.grid(name, label))

  def grid(self, name: str, label: str = 'grid') -> pathlib.Path:
    """The picture of `sampling`."""
    return self.folder(name) / 'samples' / label / 'grid.png'

  def finished(self, name: str) -> bool:
    """Whether a run has been sampled from and evaluated."""
    file = self.folder(name) / 'eval.json'
    return file.exists() and self.grid(name).exists()

  def figures(self, name: str, label: str = 'eval') -> dict[str, float]:
    """The headline figures of an evaluation.

    Raises:
      ConfigError: the Fréchet distance has another protocol than that of the
        first figures that were read: a table cannot show both.
    """
    path = self.folder(name) / f'{label}.json'
    found = json.loads(path.read_text(encoding='utf-8'))
    first, facts = self._first = self._first or (path, found)
    check_same_figures(facts, found, (str(first), str(path)), ['frechet'])
    return found['headline']

  def parameters(self, name: str) -> int:
    """Number of parameters of a run, from its parameters.txt."""
    text = (self.folder(name) / 'parameters.txt').read_text()
    (line,) = (x for x in text.splitlines() if x.startswith('Total'))
    return int(line.split(':')[1].split()[0].replace(',', ''))

  def done(self, job: Job, step: Step) -> bool:
    """Whether a step need not be taken again."""
    if step.file is None:
      return bool(self._note(job.name).get('done'))
    return step.file.exists()

  def missing(self, job: Job) -> list[Step]:
    """The steps of a job that are left, in order."""
    steps = (self.training(job), *job.after)
    return [step for step in steps if not self.done(job, step)]

  def seconds(self, name: str) -> float:
    """Training time of a run, start and compilation included; 0 if unknown."""
    return self._note(name).get('seconds', 0.0)

  def keep(self, name: str, seconds: float, done: bool) -> None:
    """Notes the training time of a run so far, and whether it is trained."""
    with atomic.whole(self._file(name)) as new:
      new.write_text(json.dumps({'seconds': seconds, 'done': done}))

  def _file(self, name):
    folder = self.folder(name)
    return folder.with_name(f'{folder.name}.seconds.json')

  def _note(self, name) -> Mapping:
    try:
      found = json.loads(self._file(name).read_text())
    except FileNotFoundError:
      return {}
    except ValueError as error:
      raise ConfigError(
        f'{self._file(name)} is damaged: {error}; remove it, and the run goes '
        'on from its newest checkpoint'
      ) from error
    return found if isinstance(found, dict) else {}
