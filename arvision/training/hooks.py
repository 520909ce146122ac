"""Helpers of the train loop: divergence, metric windows, periods, signals."""

import functools
import math
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from arvision.metrics import Mean
from arvision.tasks.base import TrainState
from arvision.training import workdir as workdirs
from arvision.training.trees import real_arrays


class Diverged(RuntimeError):
  """Training stopped because of values that are not finite."""


class Watch:
  """Stops a run whose values are not finite, with advice."""

  def __init__(self, config: ConfigDict, workdir: Any):
    """Takes the config and the folder of the run, for the message."""
    self._config = config
    self._workdir = workdir

  def metrics(
    self, metrics: Mapping[str, float], step: int, saved: int | None
  ) -> None:
    """Checks losses and gradient norms.

    Args:
      metrics: metrics of one step.
      step: optimizer steps taken, this one included.
      saved: step of the newest checkpoint, None without any.

    Raises:
      Diverged: one of them is not finite.
    """
    for name, value in metrics.items():
      if math.isfinite(value):
        continue
      if name.split('/')[0].endswith('loss') or 'gradient_norm' in name:
        self._stop(f'{name} was {value} at step {step}', saved)

  def state(self, state: TrainState, step: int, saved: int | None) -> None:
    """Checks all arrays of a state; see `metrics`.

    The loss of the step in which a state diverges is still finite.
    """
    bad = not_finite(state)
    if bad:
      self._stop(f'{bad} was not finite after step {step}', saved)

  def _stop(self, fault, saved):
    kept, how = 'there is no checkpoint yet', 'in a new --workdir'
    if saved is not None:
      kept = f'the checkpoint of step {saved} is from before that and intact'
      how += f' (--init_from={self._workdir} takes its weights)'
    raise Diverged(
      f"{fault}, so training stopped; {kept} (in '{self._workdir}').\n"
      f'What may help, {how}: {", ".join(_advice(self._config))}'
    )


def _advice(config):
  """Changes of config keys that may keep a run from diverging."""
  found = []
  plain = workdirs.to_json(config)
  for key, value in flatten_dict(plain, sep='.').items():
    block, _, name = key.rpartition('.')
    # The tokenizer of a generator is frozen.
    trained = 'backbone' not in plain or not key.startswith('tokenizer.')
    if name == 'dtype' and value in ('bfloat16', 'float16') and trained:
      found.append(f'config.{key}=float32')
    if 'optim' not in block or value is None:
      continue
    if name == 'learning_rate':
      found.append(f'a lower config.{key} (now {value})')
    elif name == 'clip':
      text = f'a smaller config.{key} (now {value})'
      found.append(text if value else f'config.{key}=1.0')
    elif block.endswith('.warmup'):
      found.append(f'a longer warm-up (config.{key}, now {value})')
  return found


def not_finite(tree: Any) -> str | None:
  """The path of the first array with a NaN or an infinity, or None.

  Args:
    tree: tree of arrays on the devices of all processes.
  """
  arrays = real_arrays(tree)
  if not arrays:
    return None
  leaves = [*arrays.values()]
  mesh = getattr(leaves[0].sharding, 'mesh', None)
  whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
  finite = np.asarray(_finite(leaves, whole))
  return next((k for k, ok in zip(arrays, finite) if not ok), None)


@functools.partial(jax.jit, static_argnames='whole')
def _finite(leaves, whole):
  found = jnp.stack([jnp.isfinite(x).all() for x in leaves])
  if whole is None:
    return found
  return jax.lax.with_sharding_constraint(found, whole)


class Window:
  """Means of metrics over the steps since the last log line."""

  def __init__(self):
    self._means: dict[str, Mean] = {}

  def add(self, metrics: Mapping[str, float]) -> None:
    """Adds the metrics of one step."""
    for name, value in metrics.items():
      before = self._means.get(name, Mean(0.0, 0.0))
      self._means[name] = Mean(before.total + value, before.weight + 1)

  def means(self) -> dict[str, float]:
    """Returns the means and resets the window."""
    means = {k: float(m.total / m.weight) for k, m in self._means.items()}
    self._means = {}
    return means

  def get_state(self) -> dict[str, Any]:
    """JSON values."""
    return {'means': {k: [m.total, m.weight] for k, m in self._means.items()}}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Restores the result of `get_state`."""
    if 'sums' in state:  # checkpoints of version 0.1
      means = {k: (v, state['count']) for k, v in state['sums'].items()}
    else:
      means = dict(state['means'])
    if not all(isinstance(x, (int, float)) for m in means.values() for x in m):
      raise ValueError(f'sums of metrics that are no numbers: {state}')
    self._means = {k: Mean(*m) for k, m in means.items()}


def due(step: int, every: int, total: int) -> bool:
  """Whether a periodic action is due after a step: regularly and at the end.

  Args:
    step: optimizer steps taken.
    every: period in steps; 0 = never.
    total: steps of the run.
  """
  return bool(every) and (step % every == 0 or step == total)


class Preemption:
  """Records SIGTERM and SIGINT, so that the loop can save before it ends.

  A second signal of either kind has its default effect. With several processes
  only one of them may get SIGTERM: JAX then agrees on a step at which all of
  them stop.
  """

  _SIGNALS = (signal.SIGTERM, signal.SIGINT)

  def __init__(self):
    self.received: int | None = None
    self._before: dict[int, Any] = {}

  def __enter__(self) -> 'Preemption':
    if jax.process_count() > 1:
      return self  # JAX has its own handler of SIGTERM there
    for number in self._SIGNALS:
      try:
        self._before[number] = signal.signal(number, self._note)
      except ValueError:  # not the main thread, which alone gets signals
        return self
    return self

  def __exit__(self, *_) -> None:
    self._restore()

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}

  def _note(self, number: int, frame: FrameType | None) -> None:
    del frame
    self.received = number
    self._restore()

  def reached(self, step: int) -> bool:
    """Whether to stop after this step; the same in all processes."""
    if jax.process_count() > 1:
      if multihost_utils.reached_preemption_sync_point(step):
        self.received = self.received or signal.SIGTERM
        return True
      return False
    return self.received is not None
