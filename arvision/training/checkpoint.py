"""Checkpoints: the state, the position in the data, and what they belong to."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from arvision.errors import ConfigError, DataError
from arvision.parallel import host
from arvision.tasks.base import TrainState
from arvision.training import differences, digests, hooks
from arvision.training import workdir as workdirs
from arvision.training.kept import Kept, read_meta
from arvision.training.trees import (
  check_room,
  check_shapes,
  first_line,
  read_shapes,
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
    """Opens the folder; the first save makes it where it does not exist.

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
        preservation_policy=self._kept, read_only=read_only, create=False
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

    Raises:
      DataError: the disk has no room for it.
    """
    self.check_room(state)
    self._kept.figures[step] = dict(figures or {})
    meta = {
      'step': step,
      'data': position,
      'facts': self.facts,
      'figures': self._kept.figures[step],
    }
    self._folder.mkdir(parents=True, exist_ok=True)
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=digests.SaveArrays(_saved(state)),
        meta=digests.SaveJson(meta),
      ),
      force=True,
    )

  def check_room(self, state: TrainState) -> None:
    """Refuses a disk that has no room for a checkpoint.

    Threads of Orbax would find out one by one, each with a traceback.

    Raises:
      DataError: with what is there and what is wanted.
    """
    latest = self.latest
    after = 'from the start' if latest is None else f'after step {latest}'
    check_room(
      self._folder,
      _saved(state),
      f'a checkpoint; the same command goes on {after} then',
    )

  def restore(
    self,
    abstract: TrainState,
    set_position: Callable[[Any], None],
    change: bool = False,
  ) -> tuple[TrainState, int] | None:
    """The newest checkpoint that can be read.

    A damaged one is moved to `damaged/` beside the folder, and the one before
    it is taken.

    Args:
      abstract: shapes, dtypes and shardings of the state; `frozen` is handed
        through.
      set_position: `set_state` of the data iterator.
      change: whether facts that are `differences.TUNABLE` may differ.

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
        self._check_facts(meta['facts'], step, change)
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
    for name in ('params', 'ema', 'opt_state', 'extra'):
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

  def _check_facts(self, facts, step, change):
    for key, value in self.facts.items():
      tunable = key in differences.TUNABLE
      if facts.get(key) != value and not (tunable and change):
        advice = 'Set it back'
        if tunable:
          advice = 'Add --change to go on with it, set it back'
        raise ConfigError(
          f'the checkpoint of step {step} was made with config.{key}='
          f'{facts.get(key)}, this run has config.{key}={value}: the order of '
          f'examples would change in the middle. {advice}, or start in a new '
          '--workdir (--init_from takes over the weights)'
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


def saved_position(workdir: str | os.PathLike) -> dict[str, Any]:
  """The `get_state()` of the newest checkpoint, {} without any."""
  folder = pathlib.Path(workdir) / workdirs.CHECKPOINTS
  for step in workdirs.saved_steps(workdir):
    try:
      return read_meta(folder / str(step))['data']
    except (ValueError, OSError):
      continue
  return {}


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
