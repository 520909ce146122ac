"""Hooks between train steps: logs, evaluation, pictures, checkpoints."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from arvision.tasks.base import TrainState
from arvision.training import divergence, hooks, spikes
from arvision.training.checkpoint import Checkpoints
from arvision.training.corruption import Guard
from arvision.training.evaluate import HeldOut
from arvision.training.events import Events
from arvision.training.interval import Interval
from arvision.training.lock import Lock
from arvision.training.schedule import Clock
from arvision.training.writers import Rate, Writer, clock_text

# Metrics that only the log files show.
_DETAIL = re.compile(r'/step_|^perplexity/|^(weight_decay|epoch)$')
# Metrics whose parts the console prints in a row.
_ROW = re.compile(r'^(usage)/scale_')


class Position:
  """Position of a run in its data and in its log.

  Attributes:
    batches: the data iterator.
    window: metrics since the last line of the log.
    spikes: recent losses and gradient norms.
    skipped: number of steps that were skipped, see `divergence`.
  """

  def __init__(
    self,
    batches: Any,
    recent: spikes.Spikes,
    left_out: Sequence[int] = (),
  ):
    """Takes the iterator, and the steps before which a batch is left out."""
    self.batches = batches
    self.spikes = recent
    self.window = hooks.Window()
    self.skipped = 0
    self._left_out = left_out
    self._places: dict[int, dict[str, Any]] = {}

  def next(self, step: int) -> Any:
    """The batch of a step."""
    for _ in range(self._left_out.count(step)):
      next(self.batches)
    batch = next(self.batches)
    # Metrics are read one step late.
    self._places.pop(step - 3, None)
    place = self._places[step] = spikes.last_batch(self.batches.get_state())
    if 'index' in batch:
      place['index'] = np.asarray(batch['index']).tolist()
    return batch

  def place(self, step: int) -> dict[str, Any]:
    """Where the batch of a step, one of the last three, is in the data.

    Returns:
      JSON values: 'batch' and 'examples', see `spikes.last_batch`; and 'index',
      the indices in the source of the pictures that this process had.
    """
    return self._places.get(step, {})

  def get_state(self) -> dict[str, Any]:
    """JSON values."""
    return {
      'batches': self.batches.get_state(),
      'window': self.window.get_state(),
      'skipped': self.skipped,
      'spikes': self.spikes.get_state(),
    }

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Restores the result of `get_state`."""
    self.batches.set_state(state['batches'])
    self.window.set_state(state['window'])
    self.skipped = int(state.get('skipped', 0))
    if 'spikes' in state:
      self.spikes.set_state(state['spikes'])


class InTraining(Protocol):
  """Evaluators that run during training.

  Attributes:
    every: name -> duration between two evaluations.
    protocols: name -> facts of the protocols of all metrics so far.
  """

  every: Mapping[str, Mapping[str, float]]
  protocols: Mapping[str, Mapping[str, Any]]

  def __call__(
    self, name: str, state: TrainState, step: int
  ) -> Mapping[str, float]:
    """The metrics of one evaluator."""


@dataclasses.dataclass
class Hooks:
  """Hooks between train steps: logs, evaluation, pictures, checkpoints.

  Attributes:
    watch: stops the run if values are not finite.
    clock: length of the run.
    every: 'log', 'evals', 'pictures', 'checkpoint' and 'evals.<name>' of an
      evaluator -> period in steps; 0 = never.
    names: names of the metrics that a step packs into one array.
    rates: name -> schedule, logged with the metrics.
    position: position in the data and in the log.
    lock: lock of the folder.
    writer: writes logs and pictures.
    checkpoints: saves checkpoints.
    held_out: held-out metrics and pictures.
    in_training: runs evaluators.
    events: notes saves and spikes.
    interval: says when to save besides `every`.
    guard: checks for silent corruption; None: nothing does.
  """

  watch: divergence.Watch
  clock: Clock
  every: Mapping[str, int]
  names: list[str]
  rates: Mapping[str, Callable]
  position: Position
  lock: Lock
  writer: Writer
  checkpoints: Checkpoints
  held_out: HeldOut
  in_training: InTraining
  events: Events
  interval: Interval
  guard: Guard | None = None

  def __post_init__(self):
    self._rate = Rate(self.clock.batch_size, self.clock.total)
    self._rates_at = jax.jit(lambda i: {k: f(i) for k, f in self.rates.items()})
    self._began = 0.0

  def start(self, step: int) -> None:
    """Starts the measurement of speed."""
    self._rate.restart(step)
    self._began = time.perf_counter()
    self.interval.start(step)

  @property
  def worked(self) -> float:
    """Seconds in steps since `start`."""
    return time.perf_counter() - self._began if self._began else 0.0

  def due(self, step: int) -> list[str]:
    """Keys of `every` that are due after a step."""
    total = self.clock.total
    found = [k for k, n in self.every.items() if hooks.due(step, n, total)]
    if 'checkpoint' not in found and self.interval.due(step):
      found.append('checkpoint')
    return found

  def read(self, step: int, metrics: jax.Array) -> None:
    """Reads the metrics (m,) of a step; waits for the step to finish.

    Raises:
      Diverged: they are not finite.
    """
    values = dict(zip(self.names, np.asarray(metrics).tolist()))
    if values.get(divergence.SKIPPED):
      self.position.skipped += 1
      count = self.position.skipped
      self.watch.skipped(count, step, self.checkpoints.latest)
      self.writer.say(f'step {step} was not finite and is skipped')
      values = {divergence.SKIPPED: 1.0}
    self.watch.metrics(values, step, self.checkpoints.latest)
    self.position.window.add(values)
    for spike in self.position.spikes(values):
      place = self.position.place(step)
      self.events.spike(step, {**spike._asdict(), **place})
      where = f'; batch {place["batch"]}' if 'batch' in place else ''
      self.writer.say(f'spike at step {step}: {spike.text()}{where}')
    speed = self._rate(step)[0]
    loss = values.get('loss', float('nan'))
    self.writer.progress(step, f'loss {loss:.4g}, {speed:.0f} images/s')

  def __call__(
    self, step: int, state: TrainState, batch: Any, due: list[str]
  ) -> None:
    """Runs the hooks that are due after a step, the checkpoint last.

    Args:
      step: optimizer steps taken.
      state: state after that step.
      batch: last batch, on the host.
      due: keys of `every`.

    Raises:
      Diverged, Corrupted: the state is not finite, or devices hold or compute
        other bits; nothing was saved.
    """
    worked = self.worked
    with self._pause():
      if 'log' in due:
        self._log(step)
      before = time.perf_counter()
      if due != ['log']:
        self.watch.state(state, step, self.checkpoints.latest)
        if self.guard is not None:
          self.guard.check(state, step, batch, self.checkpoints.latest)
      checked = time.perf_counter() - before
      figures: dict[str, float] = {}
      if 'evals' in due:
        figures = self.held_out.evaluate(state)
        if figures:
          self.writer.scalars(step, figures, _brief(figures))
      for key in due:
        if key.startswith('evals.'):
          found = self.in_training(key.removeprefix('evals.'), state, step)
          self.writer.scalars(step, found, _brief(found))
          self.writer.protocols(self.in_training.protocols)
          # 'evals.fid/fid', without the protocol: config.checkpoint.best.
          figures |= {f'{key}/{k.split("/")[0]}': v for k, v in found.items()}
      if 'pictures' in due and (rows := self.held_out.pictures(state, batch)):
        # Named by its last row: 'reconstructions' comes after 'originals'.
        self.writer.picture(list(rows)[-1], rows, step)
      if self.guard is not None:
        self.guard.rested(state, step, self.checkpoints.latest)
      if 'checkpoint' in due or self.checkpoints.improves(figures):
        self._save(step, state, figures, worked, checked)

  def _save(self, step, state, figures, worked, checked):
    before = time.perf_counter()
    self.lock.check()
    position = self.position.get_state()
    self.checkpoints.save(step, state, position, figures)
    cost = checked + time.perf_counter() - before
    line = self.interval.saved(step, cost)
    self.events.saved(step, worked, cost, self.interval.seconds)
    if line:
      self.writer.say(line)

  def _log(self, step):
    speed, left = self._rate(step)
    self._rate.restart(step)
    means = self.position.window.means()
    # Schedules count from 0: the last step is step - 1.
    rates = jax.device_get(self._rates_at(step - 1))
    means |= {k: float(v) for k, v in rates.items()}
    means['epoch'] = self.clock.seen(step) / self.clock.examples
    text = f'{_brief(means)}  {speed:.0f} images/s  {clock_text(left)} left'
    means['images_per_second'] = speed
    self.writer.scalars(step, means, text)

  @contextlib.contextmanager
  def _pause(self) -> Iterator[None]:
    before = time.perf_counter()
    yield
    seconds = time.perf_counter() - before
    self._rate.skip(seconds)
    self._began += seconds


def _brief(values):
  """A line such as 'loss 1.234  psnr 20.5  usage 0.21 0.98', losses first."""
  texts: dict[str, list[str]] = {}
  for name in sorted(values, key=lambda name: not name.endswith('loss')):
    if row := _ROW.match(name):
      texts.setdefault(row[1], []).append(f'{values[name]:.2f}')
    elif not _DETAIL.search(name):
      texts[name] = [f'{values[name]:.4g}']
  return '  '.join(f'{name} {" ".join(row)}' for name, row in texts.items())
