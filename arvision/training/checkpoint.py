"""Checkpoints: the state, the position in the data, and facts of the run."""

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
from arvision.training import differences, digests, divergence
from arvision.training import workdir as workdirs
from arvision.training.kept import Kept, read_meta
from arvision.training.trees import (
  check_room,
  check_shapes,
  first_line,
  read_shapes,
)

# Exceptions of reading JSON values of the wrong kind.
_ODD = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


class Checkpoints:
  """The checkpoints of one run.

  A checkpoint is a folder `<step>` with the arrays (`state`) and a small JSON
  (`meta`). Saves run in the background. An interrupted save leaves no folder
  that counts as a checkpoint.

  Attributes:
    facts: see `__init__`.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    facts: Mapping[str, Any],
    keep: int = 2,
    best: str = '',
    every: int = 0,
    read_only: bool = False,
  ):
    """Opens the folder; the first save creates it if needed.

    Args:
      folder: absolute or relative path.
      facts: config key -> value, of the keys that the position in the data
        depends on; checkpoints with other facts are refused.
      keep: number of newest checkpoints to keep.
      best: name of the held-out metric by which the best checkpoint is kept
        too, see `Kept`.
      every: period in steps of checkpoints that are kept for good, see `Kept`.
      read_only: whether the folder belongs to another run and must not change.

    Raises:
      ConfigError: `keep` is less than 1.
    """
    if keep < 1:
      raise ConfigError(f'config.checkpoint.keep={keep}: wanted 1 or more')
    self._folder = pathlib.Path(folder).absolute()
    self.facts = dict(facts)
    self._read_only = read_only
    self._kept = Kept(keep, best, every)
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._kept,
        read_only=read_only,
        create=False,
        # Of a save that was killed.
        cleanup_tmp_directories=not read_only,
      ),
      item_names=('state', 'meta'),
      item_handlers={'state': digests.Arrays(), 'meta': digests.Json()},
    )
    self._kept.read(self._folder, self._manager.all_steps())

  @property
  def latest(self) -> int | None:
    """The step of the newest checkpoint, None without any."""
    return max(self._manager.all_steps(), default=None)

  def improves(self, figures: Mapping[str, float]) -> bool:
    """Whether held-out metrics are better than those of all checkpoints."""
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
      step: step of the state.
      state: state to save.
      position: `get_state()` of the data iterator, JSON values. It is the
        same in every process, see `data.base.Data`.
      figures: held-out metrics of this state, None without.

    Raises:
      DataError: the disk is too full for it.
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
    """Checks that the disk has room for a checkpoint.

    Without this check every thread of Orbax would fail with a traceback.

    Raises:
      DataError: it has not; with free and required bytes.
    """
    latest = self.latest
    after = 'from the start' if latest is None else f'after step {latest}'
    check_room(
      self._folder,
      _saved(state),
      f'a checkpoint; then the same command resumes {after}',
    )

  def restore(
    self,
    abstract: TrainState,
    set_position: Callable[[Any], None],
    change: bool = False,
  ) -> tuple[TrainState, int] | None:
    """The newest checkpoint that can be read.

    Damaged checkpoints are moved to `damaged/` beside the folder.

    Args:
      abstract: shapes, dtypes and shardings of the state.
      set_position: `set_state` of the data iterator.
      change: whether facts in `differences.TUNABLE` may differ.

    Returns:
      The state and its step, or None where there is no checkpoint.

    Raises:
      ConfigError: the checkpoint has other parameters or other facts.
      DataError: all checkpoints are damaged.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      found, problem = self._read(step, abstract)
      if host.all_agree(found is not None):
        assert found is not None
        state, meta = found
        self._check_facts(meta['facts'], step, change)
        problem = _try_position(set_position, meta['data'])
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
    """((state as dict, meta), None), or (None, the fault)."""
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
    except Exception as error:  # Orbax documents no exceptions
      return None, first_line(error)
    bad = divergence.not_finite(found['state'])
    if bad:
      return None, f'{bad} has values that are not finite'
    return (found['state'], meta), None

  def _look(self, folder):
    """(meta, shapes, None) of an intact checkpoint, or (None, None, fault)."""
    lost = [name for name in workdirs.MARKERS if not (folder / name).exists()]
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
    except Exception as error:  # Orbax documents no exceptions
      return None, None, first_line(error)

  def _check_facts(self, facts, step, change):
    for key, value in self.facts.items():
      tunable = key in differences.TUNABLE
      if facts.get(key) != value and not (tunable and change):
        advice = 'Set it back'
        if tunable:
          advice = 'Add --change to resume with the new value, set it back'
        raise ConfigError(
          f'the checkpoint of step {step} was made with config.{key}='
          f'{facts.get(key)}, this run has config.{key}={value}: the order of '
          f'examples would change in the middle. {advice}, or start in a new '
          '--workdir (--init_from takes over the weights)'
        )

  def _set_aside(self, step, problem):
    problem = problem or 'another process cannot read it'
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
    """Waits until all saves are on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for all saves, and stops the threads of Orbax."""
    self._manager.wait_until_finished()
    self._manager.close()


def saved_position(workdir: str | os.PathLike) -> dict[str, Any]:
  """The saved state of the data iterator, of the newest intact checkpoint.

  Returns:
    its saved `get_state()`; {} without a checkpoint.
  """
  folder = pathlib.Path(workdir) / workdirs.CHECKPOINTS
  for step in workdirs.saved_steps(workdir):
    try:
      return read_meta(folder / str(step))['data']
    except (ValueError, OSError):
      continue
  return {}


def _try_position(set_position, state):
  """Sets the position in the data; returns the fault of the state, or None."""
  try:
    set_position(state)
  except (ConfigError, DataError):
    raise
  except _ODD as error:
    return f'its position in the data: {first_line(error)}'
  return None


def _saved(state):
  return {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}


def _shapes(folder):
  """The saved tree of a checkpoint, with shapes as leaves."""
  return {'params': {}, 'ema': {}, **read_shapes(folder / 'state')}
