"""Loads the weights of a trained or imported run."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from arvision.build import suggest
from arvision.errors import ConfigError, DataError
from arvision.ranges import Natural
from arvision.training import digests
from arvision.training import workdir as workdirs
from arvision.training.kept import best_of
from arvision.training.trees import (
  first_line,
  load_tree,
  read_numpy,
  read_shapes,
  real_arrays,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
  """Weights of a run.

  Attributes:
    config: config of the run.
    params: tree of numpy arrays.
    step: optimizer steps taken; 0 for imported weights.
    ema: decay of the running average, or 'raw' for the parameters themselves.
  """

  config: ConfigDict
  params: Any
  step: Natural
  ema: str


def load_params(
  workdir: str | os.PathLike,
  ema: str | None = None,
  step: int | str | None = None,
  allow: Iterable[str] | None = (),
) -> tuple[ConfigDict, Any, int]:
  """The config, the parameters and their step, see `load_weights`."""
  found = load_weights(workdir, ema, step, allow)
  return found.config, found.params, found.step


def load_weights(
  workdir: str | os.PathLike,
  ema: str | None = None,
  step: int | str | None = None,
  allow: Iterable[str] | None = (),
) -> Weights:
  """Loads the trained or imported weights of a run, without optimizer state.

  Args:
    workdir: folder of the run.
    ema: decay of a running average ('0.999'), or 'raw' for the parameters
      themselves. None: the average of the largest decay, or the parameters of a
      run without averages.
    step: step of a checkpoint; 'best' for the best by config.checkpoint.best,
      None for the newest that can be read.
    allow: see `workdir.load_config`.

  Raises:
    ConfigError: no run, or no such average or step.
    DataError: no checkpoint, no readable checkpoint, or weights that are not
      finite.
  """
  config = workdirs.load_config(workdir, allow)
  folder = pathlib.Path(workdir).absolute() / workdirs.CHECKPOINTS
  steps = workdirs.saved_steps(workdir)
  imported = pathlib.Path(workdir) / workdirs.IMPORTED
  if not steps and imported.is_dir():
    _ema_key(ema, [], workdir)
    params = load_tree(imported)['params']
    _refuse_not_finite(params, str(imported))
    return Weights(config, params, 0, 'raw')
  if not steps:
    raise DataError(f"'{workdir}' has no checkpoint yet; train there first")
  if step == 'best':
    name = config.get('checkpoint', {}).get('best', '')
    step = best_of(folder, steps, name)
  if step is not None and step not in steps:
    raise ConfigError(f"'{workdir}' has no step {step}; it has {steps}")
  problem = ''
  for number in steps if step is None else [step]:
    try:
      digests.check(folder / str(number) / 'state')
      saved = {'ema': {}, **read_shapes(folder / str(number) / 'state')}
      key = _ema_key(ema, list(saved['ema']), workdir)
      wanted = saved['ema'][key] if key else saved['params']
      tree = {'ema': {key: wanted}} if key else {'params': wanted}
      found = read_numpy(folder / str(number) / 'state', tree)
      params = found['ema'][key] if key else found['params']
    except ConfigError:
      raise
    except Exception as error:  # Orbax documents no exceptions
      problem = f'checkpoint {number}: {first_line(error)}'
      logging.warning(problem)
      continue
    _refuse_not_finite(
      params, f"checkpoint {number} in '{folder}'", f'; there are {steps}'
    )
    return Weights(config, params, number, key or 'raw')
  raise DataError(f"no checkpoint in '{folder}' can be read; {problem}")


def _refuse_not_finite(params, where, others=''):
  for name, leaf in real_arrays(params).items():
    if not np.isfinite(leaf).all():
      raise DataError(
        f'{where} has weights that are not finite ({name}): the run '
        f'diverged before it was saved{others}'
      )


def _ema_key(ema, decays, workdir):
  """The key of the running average, None for the parameters themselves."""
  if ema == 'raw' or (ema is None and not decays):
    return None
  key = max(decays, key=float) if ema is None else ema
  if key not in decays:
    raise ConfigError(
      f"'{workdir}' has no running average with decay '{ema}'."
      + suggest(str(ema), [*decays, 'raw'])
    )
  return key
