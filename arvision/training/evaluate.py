"""Held-out figures and pictures of a task in training."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from arvision.build import suggest
from arvision.data.base import Data
from arvision.errors import ConfigError
from arvision.parallel.host import Placement
from arvision.tasks.base import Task, TrainState


def versions(state: TrainState) -> dict[str, Any]:
  """'' -> the parameters, 'ema_0.999' -> their running averages."""
  return {'': state.params, **{f'ema_{d}': p for d, p in state.ema.items()}}


def shown(state: TrainState) -> Any:
  """The parameters that pictures are made with: the slowest average."""
  if not state.ema:
    return state.params
  return state.ema[max(state.ema, key=float)]


def _figure(version: str, name: str) -> str:
  """'held_out/loss' of the parameters, 'held_out/ema_0.999/loss'."""
  return f'held_out/{version}/{name}' if version else f'held_out/{name}'


class _Ordered:
  """A compiled function whose dict comes back in the order it was made.

  JAX sorts the keys of dicts, and so would swap the rows of a picture.
  """

  def __init__(self, placement: Placement, function: Callable[..., dict]):
    self._names: list[str] = []

    def values(*args):
      rows = function(*args)
      self._names = list(rows)
      return list(rows.values())

    self._call = placement.jit(values, out_shardings=placement.whole)

  def __call__(self, *args) -> dict[str, np.ndarray]:
    values = jax.device_get(self._call(*args))
    return dict(zip(self._names, values))


class HeldOut:
  """Means over the held-out split, and pictures of a task."""

  def __init__(
    self,
    task: Task,
    frozen: Any,
    data: Data,
    placement: Placement,
    batch_size: int,
    count: int,
  ):
    """Compiles nothing yet.

    Args:
      task: what is trained.
      frozen: weights on devices that no step changes.
      data: where the held-out split is.
      placement: of batches and results.
      batch_size: examples of a step of the pass, global.
      count: how many examples pictures are made of.
    """
    self._task = task
    self._frozen = frozen
    self._data = data
    self._placement = placement
    self._batch_size = batch_size
    whole = placement.whole
    self._evaluate = placement.jit(task.evaluate, out_shardings=whole)
    self._pictures = _Ordered(placement, task.pictures)
    self._check = _Ordered(placement, task.check)
    few = lambda batch: {k: v[:count] for k, v in batch.items()}
    self._first = placement.jit(few, out_shardings=whole)
    self._fixed: Any = None

  def evaluate(self, state: TrainState) -> dict[str, float]:
    """'held_out/loss', 'held_out/ema_0.999/loss', ...

    Without the metrics that no example of the split has a weight for.
    """
    if not self._data.held_out_examples:
      return {}
    totals: dict[str, Any] = {}
    for batch in self._pass():
      on_device = self._placement.put_batch(batch)
      for name, params in versions(state).items():
        found = self._evaluate(params, self._frozen, on_device)
        if name in totals:
          found = jax.tree.map(lambda a, b: a + b, totals[name], found)
        totals[name] = found
    return {
      _figure(name, key): float(metric.compute())
      for name, metrics in jax.device_get(totals).items()
      for key, metric in metrics.items()
      if metric.weight
    }

  def check_best(self, best: str, state: TrainState, every: int) -> None:
    """Refuses a `config.checkpoint.best` that no evaluation will measure.

    Args:
      best: name of a figure, with or without '-' in front; '' for none.
      state: of the task. `evaluate` is traced, and computes nothing.
      every: steps between two evaluations, 0 for none.

    Raises:
      ConfigError: with the figures that there are.
    """
    if not best:
      return
    said = f"config.checkpoint.best='{best}': "
    if not every or not self._data.held_out_examples:
      why = 'config.evals.every is 0' if not every else 'nothing is held out'
      raise ConfigError(f'{said}{why}, so there is no figure to go by')
    batch = self._placement.put_batch(next(iter(self._pass())))
    with self._placement.scope():
      keys = jax.eval_shape(
        self._task.evaluate, state.params, self._frozen, batch
      )
    names = [_figure(name, k) for name in versions(state) for k in keys]
    name = best.removeprefix('-')
    if name not in names:
      raise ConfigError(said + 'no such figure.' + suggest(name, names))

  def pictures(self, state: TrainState, batch: Any) -> dict[str, np.ndarray]:
    """name -> (k, H, W, C), of always the same held-out examples.

    Args:
      state: of the task.
      batch: a training batch on the host, used where nothing is held out.
    """
    if self._fixed is None:
      if self._data.held_out_examples:
        batch = next(iter(self._pass()))
      self._fixed = self._few(batch)
    return self._pictures(shown(state), self._frozen, self._fixed)

  def check(self, batch: Any) -> dict[str, np.ndarray]:
    """What the model will see of a training batch on the host."""
    return self._check(self._frozen, self._few(batch))

  def _pass(self):
    return self._data.held_out(self._batch_size, *self._placement.share())

  def _few(self, batch):
    # Of the global batch: one process may make fewer rows than are shown.
    return self._first(self._placement.put_batch(batch))
