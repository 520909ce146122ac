"""Checkpoints: the state, the position in the data, and what they belong to."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from arvision.build import ConfigError, suggest
from arvision.data.base import DataError
from arvision.parallel import host
from arvision.tasks.base import TrainState
from arvision.training import digests, hooks
from arvision.training import workdir as workdirs
from arvision.training.kept import Kept, best_of, read_meta
from arvision.training.trees import (
  first_line,
  name_of,
  read_numpy,
  read_shapes,
  real_arrays,
)

# Written last by Orbax, so their absence means that a save did not end.
_MARKERS = ('_CHECKPOINT_METADATA', 'state/_METADATA', 'meta/metadata')
# What foreign values raise where they are read.
_ODD = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


class Checkpoints:
  """The checkpoints of one run, newest first.

  One is a folder `<step>` with the arrays (`state`) and a small JSON (`meta`).
  Writing goes on in the background while training does; a save that was cut
  off leaves nothing that could be taken for a checkpoint.

  Attributes:
    facts: see `__init__`.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    facts: Mapping[str, Any],
    keep: int = 2,
    best: str = '',
    read_only: bool = False,
  ):
    """Opens the folder, and makes it where it does not exist.

    Args:
      folder: absolute or relative path.
      facts: config key -> value of what gives the data position its meaning;
        checkpoints with other facts are refused.
      keep: how many of the newest are kept.
      best: held-out figure by which the best one is kept too, see `Kept`.
      read_only: the folder is another run's; nothing in it is touched.
    """
    if keep < 1:
      raise ConfigError(f'config.checkpoint.keep={keep}: wanted 1 or more')
    self._folder = pathlib.Path(folder).absolute()
    self.facts = dict(facts)
    self._read_only = read_only
    self._kept = Kept(keep, best)
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._kept, read_only=read_only
      ),
      item_names=('state', 'meta'),
      item_handlers={'state': digests.Arrays(), 'meta': digests.Json()},
    )
    self._kept.read(self._folder, self._manager.all_steps())

  @property
  def latest(self) -> int | None:
    """The newest step that was saved whole, None without any."""
    return max(self._manager.all_steps(), default=None)

  def improves(self, figures: Mapping[str, float]) -> bool:
    """Whether held-out figures are better than those of every checkpoint."""
    return self._kept.improves(figures, self._manager.all_steps())

  def save(
    self,
    step: int,
    state: TrainState,
    position: Any,
    figures: Mapping[str, float] | None = None,
  ) -> None:
    """Starts a save; returns once the arrays are copied.

    Args:
      step: of the state.
      state: all but `frozen` is saved.
      position: `get_state()` of the data iterator, JSON values. It is the
        same in every process, see `data.base.Data`.
      figures: of the held-out evaluation of this state, None without one.
    """
    self._kept.figures[step] = dict(figures or {})
    meta = {
      'step': step,
      'data': position,
      'facts': self.facts,
      'figures': self._kept.figures[step],
    }
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=digests.SaveArrays(_saved(state)),
        meta=digests.SaveJson(meta),
      ),
      force=True,
    )

  def restore(
    self, abstract: TrainState, set_position: Callable[[Any], None]
  ) -> tuple[TrainState, int] | None:
    """The newest checkpoint that can be read.

    A damaged one is moved to `damaged/` beside the folder, and the one before
    it is taken.

    Args:
      abstract: shapes, dtypes and shardings of the state; `frozen` is handed
        through.
      set_position: `set_state` of the data iterator.

    Returns:
      The state and its step, or None where there is no checkpoint.

    Raises:
      ConfigError: a checkpoint of other parameters, or at a position in other
        data.
      DataError: there are checkpoints, all of them damaged.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      found, problem = self._read(step, abstract)
      if host.all_agree(found is not None):
        assert found is not None
        state, meta = found
        self._check_facts(meta['facts'], step)
        problem = _place(set_position, meta['data'])
        if host.all_agree(problem is None):
          return abstract.replace(**state), step
      self._set_aside(step, problem)
    if steps and self._read_only:
      raise DataError(f"no checkpoint in '{self._folder}' can be read")
    if steps:
      raise DataError(
        f"all checkpoints in '{self._folder}' were damaged ({steps}); they "
        f"are in '{self._folder.parent / 'damaged'}' now. Start again to "
        'train from the first step'
      )
    return None

  def _read(self, step, abstract):
    """(state as dict, meta) and None, or None and what is wrong."""
    folder = self._folder / str(step)
    meta, shapes, problem = self._look(folder)
    # Orbax restores in all processes together.
    if not host.all_agree(problem is None):
      return None, problem
    wanted = _saved(abstract)
    for name in ('params', 'ema'):
      check_shapes(shapes.get(name, {}), wanted[name], f'{folder}: {name}')
    try:
      found = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=digests.RestoreArrays(
            wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
          ),
        ),
      )
    except Exception as error:  # what Orbax raises here is not specified
      return None, first_line(error)
    bad = hooks.not_finite(found['state'])
    if bad:
      return None, f'{bad} has values that are not finite'
    return (found['state'], meta), None

  def _look(self, folder):
    """(meta, shapes, None) of a whole checkpoint, or what is wrong, last."""
    lost = [name for name in _MARKERS if not (folder / name).exists()]
    if lost:
      return None, None, f'{lost[0]} is missing'
    try:
      meta = read_meta(folder)
      for key, value in self.facts.items():
        if type(meta['facts'].get(key)) is not type(value):
          raise ValueError(f'meta/metadata has no config.{key} of its kind')
      digests.check(folder / 'meta')
      digests.check(folder / 'state', jax.process_index(), jax.process_count())
    except (ValueError, OSError) as error:
      return None, None, first_line(error)
    try:
      return meta, _shapes(folder), None
    except Exception as error:  # what Orbax raises here is not specified
      return None, None, first_line(error)

  def _check_facts(self, facts, step):
    for key, value in self.facts.items():
      if facts.get(key) != value:
        raise ConfigError(
          f'the checkpoint of step {step} was made with config.{key}='
          f'{facts.get(key)}, this run has config.{key}={value}: the order of '
          'examples would change in the middle. Set it back, or start in a '
          'new --workdir (--init_from takes over the weights)'
        )

  def _set_aside(self, step, problem):
    problem = problem or 'as another process reads it'
    if self._read_only:
      logging.warning('checkpoint %d is damaged (%s)', step, problem)
      return
    aside = self._folder.parent / 'damaged'
    before = len(list(aside.glob(f'{step}.*'))) if aside.is_dir() else 0
    target = aside / f'{step}.{before}'
    logging.warning(
      'checkpoint %d is damaged (%s); it is moved to %s', step, problem, target
    )
    if jax.process_index() == 0:
      aside.mkdir(exist_ok=True)
      (self._folder / str(step)).rename(target)
    host.barrier(f'damaged {step}')
    self._manager.reload()

  def wait(self) -> None:
    """Returns when everything is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and ends the threads."""
    self._manager.wait_until_finished()
    self._manager.close()


def load_params(
  workdir: str | os.PathLike,
  ema: str | None = None,
  step: int | str | None = None,
) -> tuple[ConfigDict, Any, int]:
  """The trained or imported parameters of a run, without optimizer state.

  Args:
    workdir: folder of the run.
    ema: which running average, by its decay ('0.999'); 'raw' for the
      parameters themselves. None takes the slowest average that the run has,
      and the parameters themselves where it has none.
    step: which checkpoint; 'best' takes that of config.checkpoint.best, None
      the newest that can be read.

  Returns:
    The run's config, the parameters as a tree of numpy arrays, their step.

  Raises:
    ConfigError: no run there, no such average or step.
    DataError: no checkpoint, none that can be read, or weights that are not
      finite.
  """
  config = workdirs.load_config(workdir)
  folder = pathlib.Path(workdir).absolute() / workdirs.CHECKPOINTS
  names = [p.name for p in folder.glob('*')] if folder.is_dir() else []
  steps = sorted((int(n) for n in names if n.isdecimal()), reverse=True)
  imported = pathlib.Path(workdir) / workdirs.IMPORTED
  if not steps and imported.is_dir():
    _which(ema, [], workdir)
    params = load_tree(imported)['params']
    _refuse_not_finite(params, str(imported))
    return config, params, 0
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
      saved = _shapes(folder / str(number))
      key = _which(ema, list(saved['ema']), workdir)
      wanted = saved['ema'][key] if key else saved['params']
      tree = {'ema': {key: wanted}} if key else {'params': wanted}
      found = read_numpy(folder / str(number) / 'state', tree)
      params = found['ema'][key] if key else found['params']
    except ConfigError:
      raise
    except Exception as error:  # what Orbax raises here is not specified
      problem = f'checkpoint {number}: {first_line(error)}'
      logging.warning(problem)
      continue
    _refuse_not_finite(
      params, f"checkpoint {number} in '{folder}'", f'; there are {steps}'
    )
    return config, params, number
  raise DataError(f"no checkpoint in '{folder}' can be read; {problem}")


def _refuse_not_finite(params, where, others=''):
  for name, leaf in real_arrays(params).items():
    if not np.isfinite(leaf).all():
      raise DataError(
        f'{where} has weights that are not finite ({name}): the run '
        f'diverged before it was saved{others}'
      )


def _which(ema, decays, workdir):
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


def save_tree(path: pathlib.Path, tree: Any) -> None:
  """Writes a tree of arrays to a folder, whole or not at all."""
  with ocp.Checkpointer(digests.Arrays()) as writer:
    writer.save(path.absolute(), args=digests.SaveArrays(tree))


def load_tree(path: pathlib.Path) -> Any:
  """Reads what `save_tree` wrote, as numpy arrays.

  Raises:
    DataError: it is damaged.
  """
  try:
    digests.check(path)
    return read_numpy(path.absolute(), read_shapes(path.absolute()))
  except Exception as error:  # what Orbax raises here is not specified
    raise DataError(f"'{path}' is damaged: {first_line(error)}") from error


def check_shapes(got: Any, wanted: Any, where: str) -> None:
  """Refuses a tree of parameters that is not like another.

  Raises:
    ConfigError: with the first few paths that differ.
  """
  a, b = _by_path(got), _by_path(wanted)
  differ = [
    f'  {path}: {a.get(path, "absent")} there, {b.get(path, "absent")} here'
    for path in sorted({*a, *b})
    if a.get(path) != b.get(path)
  ]
  if differ:
    more = f'\n  ... {len(differ) - 8} more' if len(differ) > 8 else ''
    raise ConfigError(
      f'{where}: not the parameters of this config:\n'
      + '\n'.join(differ[:8])
      + more
    )


def _by_path(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {name_of(path): tuple(leaf.shape) for path, leaf in leaves}


def _place(set_position, state):
  """Goes to a position in the data; what is wrong with it, or None."""
  try:
    set_position(state)
  except (ConfigError, DataError):
    raise
  except _ODD as error:
    return f'its position in the data: {first_line(error)}'
  return None


def _saved(state):
  names = [f.name for f in dataclasses.fields(state) if f.name != 'frozen']
  return {name: getattr(state, name) for name in names}


def _shapes(folder):
  """The saved tree of a checkpoint, with shapes for leaves."""
  return {'params': {}, 'ema': {}, **read_shapes(folder / 'state')}
