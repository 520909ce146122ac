"""A run that is checked and planned, of which nothing is written yet."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from arvision.parallel import host
from arvision.parallel.mesh import make_mesh
from arvision.parallel.rules import Rules
from arvision.tasks import assemble, settings
from arvision.training import differences, schedule, start
from arvision.training import frozen as frozen_weights


@dataclasses.dataclass(frozen=True)
class Ready:
  """Parts and facts of a run.

  Attributes:
    config: the config, resolved and completed by the data.
    data: its data.
    task: its task.
    optimizer: its optimizer.
    placement: its mesh, with rules.
    clock: length of the run.
    every: kind of event -> steps between two of them.
    evaluators: key of `every` -> its duration, for evaluators between steps.
    in_training: these evaluators.
    frozen: weights of other runs, by name.
    state_init: creates its state.
    resumed: folder of the run that is resumed, or None.
    changed: keys of the config that a resumed run changes.
    changes: changes of the batch size, see `schedule.Clock`.
    notes: lines that a user should read before the run starts.
  """

  config: ConfigDict
  data: Any
  task: Any
  optimizer: Any
  placement: host.Placement
  clock: schedule.Clock
  every: Mapping[str, int]
  evaluators: Mapping[str, Any]
  in_training: Any
  frozen: dict[str, Any]
  state_init: start.StateInit
  resumed: str | os.PathLike | None
  changed: Mapping[str, tuple[Any, Any]]
  changes: tuple[tuple[int, int], ...]
  notes: tuple[str, ...]


def prepare(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  resume_from: str | None,
  change: bool,
  make_in_training: Callable,
  make_data: Callable,
  make_task: Callable,
) -> Ready:
  """Checks a config against itself, its data, the devices and the folder.

  Args: see `loop.train`.

  Raises:
    ConfigError, DataError: see `loop.train`.
  """
  settings.check_settings(config)
  data = make_data(config)
  config = differences.as_before(assemble.complete(config, data), workdir)
  if resume_from:
    config = differences.as_before(config, resume_from)
  resumed = start.folder_to_resume(workdir, resume_from)
  differences.check_same(config, workdir, change)
  changed = differences.check_same(config, resumed or workdir, change)
  mesh = make_mesh(config.mesh)
  placement = host.Placement(mesh, Rules(**config.get('rules', {})))

  changes = start.size_changes(resumed, config.data.batch_size)
  clock = schedule.run_clock(config, data.examples, changes)
  every = {
    key: clock.steps(config[key].every, f'{key}.every')
    for key in ('log', 'evals', 'pictures', 'checkpoint')
  }
  if duration := (config.get('corruption') or {}).get('every'):
    every['corruption'] = clock.steps(duration, 'corruption.every')
  optimizer = assemble.part(config, 'optim')
  placement.check_batch(clock.batch_size, optimizer.accumulate)
  frozen = frozen_weights.load(config, resumed or workdir)
  frozen_weights.check_tokens(config, data, frozen)
  in_training = make_in_training(config, placement, frozen)
  evaluators = {f'evals.{name}': n for name, n in in_training.every.items()}
  for key, duration in evaluators.items():
    every[key] = clock.steps(duration, f'{key}.every')
  with assemble.fitting():
    tx = optimizer.make(clock)
  task = make_task(config, data, tx, frozen, clock.total)
  frozen_weights.check_names(config, task.binds)
  return Ready(
    config=config,
    data=data,
    task=task,
    optimizer=optimizer,
    placement=placement,
    clock=clock,
    every=every,
    evaluators=evaluators,
    in_training=in_training,
    frozen=frozen,
    state_init=start.StateInit(task, placement, config.seed),
    resumed=resumed,
    changed=changed,
    changes=changes,
    notes=_notes(config, clock),
  )


def _notes(config: ConfigDict, clock: schedule.Clock) -> tuple[str, ...]:
  schedule_block = config.optim.get('schedule') or {}
  warmup = schedule_block.get('warmup')
  if not warmup:
    return ()
  steps = clock.at(warmup, 'optim.schedule.warmup')
  if 2 * steps <= clock.total:
    return ()
  return (
    f'note: the warm-up of the learning rate takes {steps:,} of {clock.total:,} '
    'steps; --config.optim.schedule.warmup.fraction=0.1 shortens it',
  )
