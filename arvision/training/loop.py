"""The train loop."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from arvision.errors import DataError
from arvision.parallel import host
from arvision.tasks import assemble
from arvision.training import (
  broken,
  differences,
  divergence,
  hooks,
  peers,
  start,
)
from arvision.training import frozen as frozen_weights
from arvision.training import lock as locks
from arvision.training import workdir as workdirs
from arvision.training.checkpoint import Checkpoints
from arvision.training.corruption import Corrupted, Guard
from arvision.training.divergence import Diverged
from arvision.training.environment import environment
from arvision.training.evaluate import HeldOut
from arvision.training.events import Events
from arvision.training.interval import Interval
from arvision.training.profile import Profile
from arvision.training.ready import Ready, prepare
from arvision.training.spikes import Spikes
from arvision.training.step_hooks import Hooks, Position
from arvision.training.watchdog import Watchdog
from arvision.training.writers import Writer, further_writers


@dataclasses.dataclass(frozen=True)
class Result:
  """Result of a call of `train`.

  Attributes:
    step: optimizer steps taken since the start of the run.
    total: steps of the whole run.
    signal: number of the signal that ended it early, or None.
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
  profile: tuple[int, int] | None = None,
  make_in_training: Callable,
  make_data: Callable = assemble.make_data,
  make_task: Callable = assemble.make_task,
) -> Result:
  """Trains a config, or resumes the run of the folder.

  The state comes from the first of: the newest checkpoint of `workdir`,
  `resume_from`, `init_from`, imported weights in `workdir`, a fresh start.

  Args:
    config: the whole config.
    workdir: folder of the run.
    init_from: folder of a run whose parameters are the initial ones.
    init_partial: whether arrays of other shapes than those of `init_from` may
      start fresh.
    resume_from: folder of a run that is resumed here, with its optimizer state
      and its position in the data.
    change: whether a resumed run may change batch size, learning rate and
      schedule, see `differences.TUNABLE`.
    stop_at: stops, and saves, after this step of the run.
    profile: first and last step of a trace, see `profile.Profile`.
    make_in_training: (config, placement, frozen weights) -> evaluators between
      steps, see `step_hooks.InTraining`.
    make_data: config -> data.
    make_task: (config, data, optimizer, frozen weights, steps) -> task.

  Raises:
    ConfigError: the config does not fit itself, the devices, the data or the
      folder.
    DataError: data or checkpoints cannot be read.
    Diverged: a loss or gradient is not finite.
    Corrupted: devices hold or compute other bits.
  """
  wanted = start.Wanted(init_from, init_partial, resume_from, change)
  while True:
    ready = prepare(
      config,
      workdir,
      resume_from=resume_from,
      change=change,
      make_in_training=make_in_training,
      make_data=make_data,
      make_task=make_task,
    )
    try:
      return _train(ready, workdir, wanted, stop_at, profile)
    except Diverged as fault:
      if not divergence.go_back(config, workdir, fault):
        raise


def _train(
  ready: Ready,
  workdir: str | os.PathLike,
  wanted: start.Wanted,
  stop_at: int | None,
  profile: tuple[int, int] | None,
) -> Result:
  """Trains from the state that is there; see `train`."""
  config, data, task = ready.config, ready.data, ready.task
  clock, placement = ready.clock, ready.placement
  best = config.checkpoint.get('best') or ''
  events = Events(workdir)
  # Data that cannot say what it reads is waited for without a name.
  reads = getattr(data, 'waits_for', lambda: '')

  with contextlib.ExitStack() as stack:
    lock = stack.enter_context(locks.held(workdir))
    # Another run may have used the folder since the first check.
    differences.check_same(config, workdir, wanted.change)
    dog = stack.enter_context(Watchdog(_patience(config), events.failed, reads))
    looked = broken.check(config, data, workdir)
    batches = data.train(clock.batch_size, config.seed, *placement.share())
    stack.callback(batches.close)
    folders = (workdir, ready.resumed or workdir)
    left_out = next(filter(None, map(divergence.left_out, folders)), [])
    position = Position(batches, Spikes(config), left_out)
    memory = None
    if ready.every.get('memory'):
      memory = peers.Memory(config, workdir, ready.state_init.abstract)
      # Later than the last checkpoint is on disk.
      stack.push(functools.partial(_remove, memory))
    checkpoints = Checkpoints(
      pathlib.Path(workdir) / workdirs.CHECKPOINTS,
      {'seed': config.seed, 'data.batch_size': clock.batch_size},
      keep=config.checkpoint.get('keep', 2),
      best=best,
      every=_kept_period(config, clock),
    )
    stack.callback(checkpoints.close)
    state, step, source = start.first_state(
      ready.state_init,
      pathlib.Path(workdir),
      checkpoints,
      position,
      wanted,
      memory,
    )
    changes = ready.changes
    if changes != tuple(batches.get_state().get('changes', changes)):
      raise DataError(
        f"'{workdir}': the newest checkpoint was damaged, and the batch size "
        'changed after the one before it. Run the same command again to resume '
        'from that one'
      )
    end = clock.total if stop_at is None else min(stop_at, clock.total)
    trace = Profile(profile, pathlib.Path(workdir) / 'tensorboard', end)
    stack.callback(trace.close)
    on_device = placement.put_whole(task.frozen)
    count = config.pictures.get('count', 32)
    held_out = HeldOut(
      task, on_device, data, placement, clock.batch_size, count
    )
    if step < end:
      guard = None
      if ready.every.get('corruption'):
        guard = Guard(task, placement, on_device, workdir)
      checkpoints.check_room(state)
      dog.waits_for_data('reading the first batch')
      batch = position.next(step + 1)
      dog.rests()
      # An evaluator's figures are known once it has run.
      if best.removeprefix('-').partition('/')[0] not in ready.evaluators:
        held_out.check_best(best, state, ready.every['evals'])
      traced, names = start.trace_step(
        task,
        placement,
        state,
        on_device,
        placement.put_batch(batch),
        divergence.action(config) == 'skip',
      )

    further = further_writers(config)
    # All checks are done. Nothing was written up to here.
    frozen_weights.claim(workdir, config, ready.frozen)
    writer = Writer(workdir, clock.total, step, clock.seen)
    stack.push(lambda kind, *_: writer.close(failed=kind is not None))
    writer.add(further, config)
    writer.say('\n'.join([data.describe(), *looked, *ready.notes]))
    writer.say(f'{start.describe(state, placement.mesh)}; {source} step {step}')
    writer.changed(step, ready.changed)
    writer.parameters(state.params)
    writer.environment(environment(placement.mesh))
    if step >= end:
      writer.say(f'nothing to do: {step} of {end} steps are already done')
      return Result(step, clock.total)

    if memory is not None:
      writer.say(memory.start())
    if line := events.start(step, memory.worked if memory else None):
      writer.say(line)
    if step == 0:
      writer.picture('first_batch', held_out.check(batch))
    step_fn, text = start.compile_step(traced, placement)
    writer.say(text)
    if guard is not None:
      writer.say(guard.start(state, step, batch))
    if line := trace.describe(step):
      writer.say(line)
    between = Hooks(
      watch=divergence.Watch(config, workdir),
      clock=clock,
      every=ready.every,
      names=names,
      rates=ready.optimizer.rates(clock),
      position=position,
      lock=lock,
      writer=writer,
      checkpoints=checkpoints,
      held_out=held_out,
      in_training=ready.in_training,
      events=events,
      interval=Interval(_between_failures(config), events.costs()),
      guard=guard,
      memory=memory,
    )
    # Saves that end may take any time.
    stack.callback(dog.rests)
    with events.noting_failure():
      result = loop(
        step_fn,
        on_device,
        placement,
        between,
        trace,
        dog,
        batch,
        state,
        step,
        end,
      )
    why = 'stopped' if result.signal in (None, signal.SIGINT) else 'signal'
    if result.step == result.total:
      why = 'done'
    account = events.end(result.step, between.worked, why)
    writer.say(account.text())
    if guard is not None:
      writer.say(guard.text(between.worked))
    return result


def _remove(memory, kind, *_):
  """Removes copies, but not after an error after which they are of use."""
  if kind is None or issubclass(kind, (Diverged, Corrupted)):
    memory.remove()


def _kept_period(config, clock):
  """Steps between two checkpoints that are kept for good; 0: none are."""
  duration = config.checkpoint.get('keep_every')
  return clock.steps(duration, 'checkpoint.keep_every') if duration else 0


def _between_failures(config):
  """Seconds; 0: the run does not choose when it saves."""
  return 3600 * (config.checkpoint.get('hours_between_failures') or 0.0)


def _patience(config):
  """Seconds that a step may take; 0: any time. Older runs have no such key."""
  return (config.get('watchdog') or {}).get('seconds', 0.0)


def loop(
  step_fn: Callable,
  frozen: Any,
  placement: host.Placement,
  between: Hooks,
  trace: Profile,
  dog: Watchdog,
  batch: Any,
  state: Any,
  step: int,
  end: int,
) -> Result:
  """Runs the steps after `step`, up to and including `end`.

  Args:
    step_fn: (state, frozen weights, batch) -> (state, metrics).
    frozen: frozen weights, on devices.
    placement: puts batches on devices.
    between: hooks that run between steps; they hold the data iterator.
    trace: annotates the steps.
    dog: watches over steps and batches.
    batch: first batch, on the host.
    state: state on devices; it is donated.
    step: optimizer steps taken.
    end: last step.
  """
  unread = None
  between.start(step)
  with hooks.Preemption() as preemption:
    while True:
      dog.waits(f'step {step + 1}')
      with trace.step(step + 1):
        state, metrics = step_fn(state, frozen, placement.put_batch(batch))
      step += 1
      if trace.after(step, metrics):
        between.writer.say(f'the profile of step {step} and before is written')
      # The device computes this step while the metrics of the one before are
      # read.
      if unread is not None:
        between.read(step - 1, unread)
      unread = metrics
      due = between.due(step)
      stop = preemption.reached(step) or step == end
      if stop and 'checkpoint' not in due:
        due.append('checkpoint')
      if due:
        between.read(step, metrics)
        dog.rests()
        between(step, state, batch, due)
        unread = None
      if stop:
        return Result(step, between.clock.total, preemption.received)
      dog.waits_for_data(f'reading the batch of step {step + 1}')
      batch = between.position.next(step + 1)
