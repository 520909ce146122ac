"""Held-out metrics and pictures during training."""

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
  """'' -> the parameters, 'ema_0.999' -> the running average of that decay."""
  return {'': state.params, **{f'ema_{d}': p for d, p in state.ema.items()}}


def slowest_average(state: TrainState) -> Any:
  """The running average of the largest decay; the parameters without one."""
  if not state.ema:
    return state.params
  return state.ema[max(state.ema, key=float)]


def _figure(version: str, name: str) -> str:
  """Name of a metric: 'held_out/loss', or 'held_out/ema_0.999/loss'."""
  return f'held_out/{version}/{name}' if version else f'held_out/{name}'


class _Ordered:
  """A compiled function that keeps the order of the dict that it returns.

  JAX sorts the keys of dicts, which would reorder the rows of a picture.
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
  """Metrics over the held-out split, and pictures of a task."""

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
      task: the task.
      frozen: frozen weights, on devices.
      data: data with the held-out split.
      placement: placement of batches and results.
      batch_size: global batch size of the evaluation.
      count: number of examples for pictures.
    """
    self._task = task
    self._frozen = frozen
    self._data = data
    self._placement = placement
    self._batch_size = batch_size
    replicated = placement.whole
    self._evaluate = placement.jit(task.evaluate, out_shardings=replicated)
    self._pictures = _Ordered(placement, task.pictures)
    self._check = _Ordered(placement, task.check)
    few = lambda batch: {k: v[:count] for k, v in batch.items()}
    self._first = placement.jit(few, out_shardings=replicated)
    self._fixed: Any = None

  def evaluate(self, state: TrainState) -> dict[str, float]:
    """Metrics of the held-out split, by names such as 'held_out/loss'.

    Metrics whose total weight is zero are left out.
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
    """Checks that evaluations measure the metric of `config.checkpoint.best`.

    Args:
      best: name of a metric, with or without '-' in front; '' for none.
      state: state of the task. `evaluate` is only traced.
      every: steps between two evaluations, 0 for none.

    Raises:
      ConfigError: they do not; with the metrics that they measure.
    """
    if not best:
      return
    got = f"config.checkpoint.best='{best}': "
    if not every or not self._data.held_out_examples:
      why = 'config.evals.every is 0' if not every else 'nothing is held out'
      raise ConfigError(f'{got}{why}, so there is no metric to compare')
    batch = self._placement.put_batch(next(iter(self._pass())))
    with self._placement.scope():
      keys = jax.eval_shape(
        self._task.evaluate, state.params, self._frozen, batch
      )
    names = [_figure(name, k) for name in versions(state) for k in keys]
    name = best.removeprefix('-')
    if name not in names:
      raise ConfigError(got + 'no such metric.' + suggest(name, names))

  def pictures(self, state: TrainState, batch: Any) -> dict[str, np.ndarray]:
    """name -> (k, H, W, C) pictures of the same held-out examples every time.

    Args:
      state: state of the task.
      batch: a training batch on the host, used without a held-out split.
    """
    if self._fixed is None:
      if self._data.held_out_examples:
        batch = next(iter(self._pass()))
      self._fixed = self._few(batch)
    return self._pictures(slowest_average(state), self._frozen, self._fixed)

  def check(self, batch: Any) -> dict[str, np.ndarray]:
    """name -> (k, H, W, C) inputs of the model in a batch on the host."""
    return self._check(self._frozen, self._few(batch))

  def _pass(self):
    return self._data.held_out(self._batch_size, *self._placement.share())

  def _few(self, batch):
    # From the global batch: a process may have fewer examples than wanted.
    return self._first(self._placement.put_batch(batch))
