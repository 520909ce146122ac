"""What a training would do: its config, and the facts that follow from it."""

import math
import os
from typing import Any

import jax
from ml_collections import ConfigDict

from arvision.runs.measure import InTraining
from arvision.tasks import assemble
from arvision.training import broken, differences, start
from arvision.training import workdir as workdirs
from arvision.training.ready import Ready, prepare


def plan(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  init_from: str | None = None,
  resume_from: str | None = None,
  change: bool = False,
  stop_at: int | None = None,
) -> str:
  """Makes all checks of a training up to its first program; writes nothing.

  Args: see `loop.train`.

  Returns:
    the resolved config, a line per key as `arvision config` prints them, and
    lines about data, parameters, steps, mesh and frozen weights.

  Raises:
    ConfigError, DataError: the training would be refused.
  """
  ready = prepare(
    config,
    workdir,
    resume_from=resume_from,
    change=change,
    make_in_training=InTraining,
    make_data=assemble.make_data,
    make_task=assemble.make_task,
  )
  plain = ready.config.copy_and_resolve_references().to_dict()
  keys = [
    f'{key}={value!r}' for key, value in differences.flat(plain, 'config')
  ]
  looked = broken.check(ready.config, ready.data, None)
  _trace(ready)
  facts = _facts(ready, workdir, init_from, resume_from, stop_at)
  width = max(map(len, facts))
  lines = [f'{name:<{width}}  {text}' for name, text in facts.items()]
  return '\n'.join(
    [
      *keys,
      '',
      *lines,
      *looked,
      *ready.notes,
      '',
      'dry run: nothing was written',
    ]
  )


def _trace(ready: Ready) -> None:
  """Traces the train step over its first batch, which checks every part."""
  placement, clock = ready.placement, ready.clock
  seed = ready.config.seed
  batches = ready.data.train(clock.batch_size, seed, *placement.share())
  try:
    batch = placement.put_batch(next(batches))
  finally:
    batches.close()
  frozen = placement.put_whole(ready.task.frozen)
  start.trace_step(
    ready.task, placement, ready.state_init.abstract, frozen, batch
  )


def _facts(ready, workdir, init_from, resume_from, stop_at) -> dict[str, str]:
  """Name -> what the run would do."""
  clock, config = ready.clock, ready.config
  end = min(clock.total, stop_at or clock.total)
  passes = clock.seen(clock.total) / ready.data.examples
  source = 'fresh'
  if ready.resumed:
    step = workdirs.saved_steps(ready.resumed)[0]
    source = f'resumes {ready.resumed} after step {step:,}'
  elif init_from:
    source = f'weights of {init_from}'
  elif workdirs.holds_run(workdir) and not resume_from:
    source = f'what {workdir} holds'
  steps = f'{clock.total:,} of {clock.batch_size:,} images'
  steps += f', {passes:.3g} passes over the training images'
  if end < clock.total:
    steps += f'; stops at {end:,}'
  abstract = ready.state_init.abstract
  facts = {
    'data': ready.data.describe(),
    'model': start.describe(abstract, ready.placement.mesh),
    'state': f'{_bytes(abstract)} with optimizer and averages; {source}',
    'steps': steps,
    'every': ', '.join(f'{k} {n:,} steps' for k, n in ready.every.items()),
  }
  for name, folder in config.get('frozen', {}).items():
    facts[f'frozen {name}'] = folder
  for key, (before, now) in ready.changed.items():
    facts[key] = f'{before!r} until now, {now!r} from here on'
  return facts


def _bytes(tree: Any) -> str:
  size = sum(
    math.prod(x.shape) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
    if hasattr(x.dtype, 'itemsize')
  )
  return f'{size / 2**20:,.1f} MiB'
