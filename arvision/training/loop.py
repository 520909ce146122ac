"""The train loop. It knows a Task and a Data, and nothing of images."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from arvision.errors import DataError
from arvision.parallel import host
from arvision.parallel.mesh import make_mesh
from arvision.parallel.rules import Rules
from arvision.tasks import assemble
from arvision.training import differences, hooks, schedule, start
from arvision.training import frozen as frozen_weights
from arvision.training import lock as locks
from arvision.training import workdir as workdirs
from arvision.training.checkpoint import Checkpoints
from arvision.training.evaluate import HeldOut
from arvision.training.measure import InTraining
from arvision.training.step_hooks import Hooks, Position
from arvision.training.writers import Writer


@dataclasses.dataclass(frozen=True)
class Result:
  """How a call of `train` ended.

  Attributes:
    step: optimizer steps taken, since the start of the run.
    total: steps of the whole run.
    signal: that ended it early, None for none.
  """

  step: int
  total: int
  signal: int | None = None


def train(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  init_from: str | None = None,
  init_partial: bool = False,
  resume_from: str | None = None,
  change: bool = False,
  stop_at: int | None = None,
  make_data: Callable = assemble.make_data,
  make_task: Callable = assemble.make_task,
) -> Result:
  """Trains what a config describes, or goes on where the folder's run ended.

  The state comes from the first of: this folder's newest checkpoint,
  `resume_from`, `init_from`, a fresh start.

  Args:
    config: whole config.
    workdir: folder of the run.
    init_from: folder of a run whose parameters are taken over.
    init_partial: whether those of them that do not fit may start fresh.
    resume_from: folder of a run that is continued here, with its optimizer
      and its position in the data.
    change: whether batch size, learning rate and schedule may be others than
      those that the run had, see `differences.TUNABLE`.
    stop_at: stops, and saves, after this step of the run.
    make_data: config -> data.
    make_task: (config, data, optimizer, frozen weights, steps) -> task.

  Raises:
    ConfigError: a config that does not fit itself, the devices, the data or
      the folder.
    DataError: data or checkpoints that cannot be read.
    Diverged: a loss or gradient that is not finite.
  """
  assemble.check_settings(config)
  data = make_data(config)
  config = differences.as_before(assemble.complete(config, data), workdir)
  if resume_from:
    config = differences.as_before(config, resume_from)
  going_on = start.goes_on(workdir, resume_from)
  differences.check_same(config, workdir, change)
  changed = differences.check_same(config, going_on or workdir, change)
  mesh = make_mesh(config.mesh)
  placement = host.Placement(mesh, Rules(**config.get('rules', {})))

  changes = start.size_changes(going_on, config.data.batch_size)
  clock = schedule.run_clock(config, data.examples, changes)
  every = {
    key: clock.steps(config[key].every, f'{key}.every')
    for key in ('log', 'evals', 'pictures', 'checkpoint')
  }
  best = config.checkpoint.get('best') or ''
  optimizer = assemble.part(config, 'optim')
  placement.check_batch(clock.batch_size, optimizer.accumulate)
  frozen = frozen_weights.load(config, going_on or workdir)
  frozen_weights.check_tokens(config, data, frozen)
  in_training = InTraining(config, placement, frozen)
  for name, duration in in_training.every.items():
    every[f'evals.{name}'] = clock.steps(duration, f'evals.{name}.every')
  with assemble.fitting():
    tx = optimizer.make(clock)
  task = make_task(config, data, tx, frozen, clock.total)
  origin = start.StateInit(task, placement, config.seed)
  batches = data.train(clock.batch_size, config.seed, *placement.share())

  with contextlib.ExitStack() as stack:
    stack.callback(batches.close)
    lock = stack.enter_context(locks.held(workdir))
    # Another run may have come and gone since it was asked first.
    differences.check_same(config, workdir, change)
    position = Position(batches)
    checkpoints = Checkpoints(
      pathlib.Path(workdir) / workdirs.CHECKPOINTS,
      {'seed': config.seed, 'data.batch_size': clock.batch_size},
      keep=config.checkpoint.get('keep', 2),
      best=best,
    )
    stack.callback(checkpoints.close)
    state, step, said = start.first_state(
      origin,
      pathlib.Path(workdir),
      checkpoints,
      position,
      start.Wanted(init_from, init_partial, resume_from, change),
    )
    if changes != tuple(batches.get_state().get('changes', changes)):
      raise DataError(
        f"'{workdir}': the newest checkpoint was damaged, and the batch size "
        'changed after the one before it. Give the same command again, to go '
        'on from that one'
      )
    end = clock.total if stop_at is None else min(stop_at, clock.total)
    on_device = placement.put_whole(task.frozen)
    count = config.pictures.get('count', 32)
    held_out = HeldOut(task, data, placement, clock.batch_size, count)
    if step < end:
      checkpoints.check_room(state)
      batch = next(batches)
      full = state.replace(frozen=on_device)
      held_out.check_best(best, full, every['evals'])
      traced, names = start.trace_step(
        task, placement, state, on_device, placement.put_batch(batch)
      )

    # Nothing was written up to here, and all that can be wrong was looked at.
    frozen_weights.claim(workdir, config, frozen)
    writer = Writer(workdir, clock.total, step, clock.seen)
    stack.callback(writer.close)
    writer.say(data.describe())
    writer.say(f'{start.describe(state, mesh)}; {said} step {step}')
    writer.changed(step, changed)
    writer.parameters(state.params)
    if step >= end:
      writer.say(f'nothing to do: {step} of {end} steps were taken before')
      return Result(step, clock.total)

    if step == 0:
      writer.picture('first_batch', held_out.check(full, batch))
    step_fn, text = start.compile_step(traced, placement)
    writer.say(text)
    between = Hooks(
      watch=hooks.Watch(config, workdir),
      clock=clock,
      every=every,
      names=names,
      rates=optimizer.rates(clock),
      frozen=on_device,
      position=position,
      lock=lock,
      writer=writer,
      checkpoints=checkpoints,
      held_out=held_out,
      in_training=in_training,
    )
    return loop(step_fn, placement, between, batch, state, step, end)


def loop(
  step_fn: Callable,
  placement: host.Placement,
  between: Hooks,
  batch: Any,
  state: Any,
  step: int,
  end: int,
) -> Result:
  """Takes the steps after `step`, up to and with `end`.

  Args:
    step_fn: (state, frozen weights, batch) -> (state, metrics).
    placement: puts batches on devices.
    between: what is done between steps; it holds the frozen weights and the
      data iterator.
    batch: the first one, on the host.
    state: on devices; it is used up.
    step: optimizer steps taken.
    end: the last step to take.
  """
  unread = None
  between.start(step)
  with hooks.Preemption() as preemption:
    while True:
      state, metrics = step_fn(
        state, between.frozen, placement.put_batch(batch)
      )
      step += 1
      # The device works on this step while the one before is looked at.
      if unread is not None:
        between.read(step - 1, unread)
      unread = metrics
      due = between.due(step)
      stop = preemption.reached(step) or step == end
      if stop and 'checkpoint' not in due:
        due.append('checkpoint')
      if due:
        between.read(step, metrics)
        between(step, state, batch, due)
        unread = None
      if stop:
        return Result(step, between.clock.total, preemption.received)
      batch = next(between.position.batches)
