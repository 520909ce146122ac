"""Weights & Biases as a further writer of metrics and pictures."""

import dataclasses
import importlib
import json
import pathlib
import re
import secrets
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from ml_collections import ConfigDict

from arvision import atomic
from arvision.build import Checked
from arvision.errors import ConfigError
from arvision.training import workdir as workdirs


@dataclasses.dataclass(frozen=True)
class Wandb(Checked):
  """Writes to Weights & Biases; needs the package `wandb`.

  The id of its run is stored in the folder of ours, so a resumed training
  continues the same run. Figures are plotted over `step`, our optimizer steps:
  those after the newest checkpoint of a killed training come twice, and are
  equal.

  Attributes:
    project: name of the project.
    entity: user or team, '' for the default.
    name: name of the run, '' for that of its folder.
    group: name of a group of runs, '' for none.
    tags: tags of the run.
    mode: 'offline' writes files for `wandb sync`; '' is what WANDB_MODE says.
  """

  project: str = 'arvision'
  entity: str = ''
  name: str = ''
  group: str = ''
  tags: tuple[str, ...] = ()
  mode: Literal['', 'online', 'offline', 'disabled'] = ''

  def check(self) -> None:
    """Raises ConfigError where the package is missing."""
    _package()

  def open(self, folder: pathlib.Path, config: ConfigDict) -> 'Opened':
    """Starts the run of a folder, or continues it.

    Args:
      folder: folder of the run.
      config: the whole config.

    Raises:
      ConfigError: Weights & Biases refuses the run.
    """
    wandb = _package()
    try:
      run = wandb.init(
        project=self.project,
        entity=self.entity or None,
        name=self.name or folder.absolute().name,
        group=self.group or None,
        tags=[*self.tags] or None,
        mode=self.mode or None,
        id=_id(folder / workdirs.WANDB),
        resume='allow',
        dir=str(folder),
        config=workdirs.to_json(config),
      )
    except wandb.errors.Error as error:
      text = ' '.join(str(error).split())
      raise ConfigError(
        f'config.writers: Weights & Biases cannot start the run ({text}); log '
        'in (wandb login), or set mode=offline'
      ) from error
    run.define_metric('step')
    run.define_metric('*', step_metric='step')
    return Opened(run, wandb.Image)


@dataclasses.dataclass(frozen=True)
class Opened:
  """A run of Weights & Biases that is being written.

  Attributes:
    run: the run.
    image: its class of pictures.
  """

  run: Any
  image: Any

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes metrics: name -> value after a step."""
    self.run.log({**values, 'step': step})

  def picture(self, name: str, sheet: np.ndarray, step: int) -> None:
    """Writes a picture (height, width, 3) uint8."""
    self.run.log({f'pictures/{name}': self.image(sheet), 'step': step})

  def close(self, failed: bool) -> None:
    """Ends the run; waits until everything is sent."""
    self.run.finish(exit_code=int(failed))


def _package() -> Any:
  try:
    return importlib.import_module('wandb')
  except ModuleNotFoundError as error:
    raise ConfigError(
      f'config.writers: Weights & Biases needs the package {error.name}: '
      "pip install 'arvision[wandb]'"
    ) from error


def _id(path: pathlib.Path) -> str:
  """The id in a file, which is written at the first start."""
  if not path.exists():
    with atomic.whole(path) as new:
      new.write_text(json.dumps({'id': secrets.token_hex(4)}) + '\n')
  try:
    found = json.loads(path.read_bytes())['id']
    if re.fullmatch(r'[\w-]{1,64}', found):
      return found
  except (ValueError, KeyError, TypeError, RecursionError):
    pass
  raise ConfigError(
    f"{path}: wanted {{'id': id of a run of Weights & Biases}}; delete the file "
    'to start a new one'
  )
