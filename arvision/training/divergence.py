"""Values that are not finite: what a run does about them.

`config.not_finite.action` says it:

- 'stop' ends the run; its newest checkpoint is from before.
- 'skip' leaves the state as it was before the step.
- 'rollback' goes back to the newest checkpoint, and leaves out the batch of the step
  when it gets there again.

`config.not_finite.most` is how often a run may skip or go back.
"""

import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from arvision import atomic
from arvision.errors import DataError
from arvision.parallel import host
from arvision.tasks.base import TrainState
from arvision.training import workdir as workdirs
from arvision.training.trees import real_arrays

# Metric: whether a step was skipped.
SKIPPED = 'skipped'
_MOST = 3


class Diverged(RuntimeError):
  """Training stopped because of values that are not finite.

  Attributes:
    step: the step in which they came about, None if unknown.
  """

  def __init__(self, text: str, step: int | None = None):
    """Takes the message and the step."""
    super().__init__(text)
    self.step = step


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
      if _must_be_finite(name):
        self._stop(f'{name} was {value} at step {step}', step, saved)

  def skipped(self, count: int, step: int, saved: int | None) -> None:
    """Counts steps that were skipped, this one included; see `metrics`.

    Raises:
      Diverged: they are more than the config allows.
    """
    if count > _most(self._config):
      fault = f'{count} steps were not finite, the last one at step {step}'
      self._stop(fault, step, saved)

  def state(self, state: TrainState, step: int, saved: int | None) -> None:
    """Checks all arrays of a state; see `metrics`.

    The loss of the step in which a state diverges is still finite.
    """
    bad = not_finite(state)
    if bad:
      self._stop(f'{bad} was not finite after step {step}', step, saved)

  def _stop(self, fault, step, saved):
    kept, how = 'there is no checkpoint yet', 'in a new --workdir'
    if saved is not None:
      kept = f'the checkpoint of step {saved} is from before that and intact'
      how += f' (--init_from={self._workdir} takes its weights)'
    raise Diverged(
      f"{fault}, so training stopped; {kept} (in '{self._workdir}').\n"
      f'What may help, {how}: {", ".join(_advice(self._config))}',
      step,
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


def _must_be_finite(name):
  return name.split('/')[0].endswith('loss') or 'gradient_norm' in name


def action(config: ConfigDict) -> str:
  """What a run does: 'stop', 'skip' or 'rollback'."""
  return (config.get('not_finite') or {}).get('action', 'stop')


def _most(config):
  return (config.get('not_finite') or {}).get('most', _MOST)


def skip(
  before: TrainState, after: TrainState, metrics: Mapping[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
  """The state after a step, or that before it where a value is not finite.

  Args:
    before, after: the states; `after.step` is kept.
    metrics: of the step.

  Returns:
    the state, and the metrics with `SKIPPED`, 0 or 1.
  """
  values = [x for name, x in metrics.items() if _must_be_finite(name)]
  values += [
    x for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)
  ]
  fine = jnp.stack([jnp.isfinite(x).all() for x in values]).all()
  kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), after, before)
  return kept.replace(step=after.step), {**metrics, SKIPPED: 1.0 - fine}


def left_out(workdir: str | os.PathLike) -> list[int]:
  """Steps before which a run leaves out a batch; twice for two batches.

  Raises:
    DataError: the file is damaged.
  """
  path = pathlib.Path(workdir) / workdirs.LEFT_OUT
  if not path.exists():
    return []
  try:
    found = json.loads(path.read_bytes())['steps']
    if all(type(step) is int for step in found):
      return list(found)
    raise ValueError('wanted whole numbers')
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise DataError(
      f"'{path}' is damaged ({error}); it says which batches are left out"
    ) from error


def go_back(
  config: ConfigDict, workdir: str | os.PathLike, fault: Diverged
) -> bool:
  """Notes that the batch of a step is to be left out, if the config says so.

  Returns:
    whether the run is to start again from its newest checkpoint.
  """
  if action(config) != 'rollback' or fault.step is None:
    return False
  steps = [*left_out(workdir), fault.step]
  if len(steps) > _most(config):
    return False
  if jax.process_index() == 0:
    with atomic.whole(pathlib.Path(workdir) / workdirs.LEFT_OUT) as new:
      new.write_text(json.dumps({'steps': steps}) + '\n')
  host.barrier(f'left out {len(steps)}')
  first = str(fault).partition(',')[0]
  host.say(
    f'{first}: going back to the newest checkpoint, and leaving out the batch of '
    f'step {fault.step} ({len(steps)} of {_most(config)} times)'
  )
  return True


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
