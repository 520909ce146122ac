"""Initial state of a run, and its compiled train step."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from arvision.data import stream
from arvision.errors import ConfigError
from arvision.kernels import traced
from arvision.parallel import host
from arvision.parallel.host import Placement
from arvision.tasks import assemble
from arvision.tasks.base import Task, TrainState
from arvision.training import differences, divergence
from arvision.training import workdir as workdirs
from arvision.training.checkpoint import Checkpoints, saved_position
from arvision.training.peers import Memory
from arvision.training.step_hooks import Position
from arvision.training.trees import by_path, mismatches
from arvision.training.weights import load_params


class StateInit:
  """Creates train states, fresh or with the parameters of another run.

  Attributes:
    abstract: shapes, dtypes and shardings of the state.
  """

  def __init__(self, task: Task, placement: Placement, seed: int):
    """Traces the shapes and shardings of the state.

    Raises:
      ConfigError: the mesh does not divide the parameters.
    """
    self._task = task
    self._key = jax.random.key(seed)
    with assemble.fitting():
      boxed = jax.eval_shape(task.init, self._key)
    self._shardings = placement.rules.shardings(placement.mesh, boxed)
    self.abstract = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      nn.unbox(boxed),
      self._shardings,
    )

  def fresh(self) -> TrainState:
    """A fresh state, created with its shardings."""

    def init(key):
      return nn.unbox(self._task.init(key))

    return jax.jit(init, out_shardings=self._shardings)(self._key)

  def with_params(
    self, workdir: str | os.PathLike, partial: bool = False
  ) -> tuple[TrainState, str]:
    """A fresh state with the raw parameters of another run.

    Running averages start with these parameters too. Networks that the other
    run
    lacks stay fresh: released tokenizers have no discriminator.

    Args:
      workdir: folder of the other run.
      partial: whether arrays of other shapes may stay fresh.

    Returns:
      The state, and a line about the source of its parameters.

    Raises:
      ConfigError: the parameters have other names or shapes than those of this
        config, or with `partial` none of them fits.
    """
    params, step = load_params(workdir, 'raw', allow=None)[1:]
    wanted = self.abstract.params
    params = with_absent(params, wanted, getattr(self._task, 'copies', ()))
    absent = [name for name in wanted if name not in params]
    ours = {name: wanted[name] for name in wanted if name not in absent}
    mismatched = mismatches(params, ours)
    taken = {k: x for k, x in by_path(params).items() if k not in mismatched}
    if mismatched and not (partial and taken):
      advice = 'No array fits; name another run'
      if taken:
        advice = (
          f'--init_partial loads the {len(taken)} arrays that fit, and starts '
          'these fresh'
        )
      raise ConfigError(
        f'--init_from={workdir} has other parameters than this config:\n'
        f'{_grouped(mismatched)}\n{advice}'
      )

    def take(state, taken):
      leaves, tree = jax.tree.flatten(state.params)
      mixed = tree.unflatten(
        [taken.get(k, x) for k, x in zip(by_path(state.params), leaves)]
      )
      ema = {
        decay: jax.tree.map(jnp.copy, {k: mixed[k] for k in average})
        for decay, average in state.ema.items()
      }
      return state.replace(params=mixed, ema=ema)

    state = jax.jit(take, out_shardings=self._shardings)(self.fresh(), taken)
    source = f'weights of {workdir} at step {step} (raw, not a running average)'
    if absent:
      source += f', fresh {" and ".join(sorted(absent))}'
    if mismatched:
      host.say(
        f'--init_from={workdir}: {len(taken)} arrays are loaded; these do not '
        f'fit and start fresh:\n{_grouped(mismatched)}'
      )
    return state, source


def with_absent(params, wanted, copies):
  """Parameters, and copies for wanted ones that are absent.

  Args:
    params: tree of another run.
    wanted: tree of shapes.
    copies: see `tasks.autoregressive.Autoregressive.copies`.

  Returns:
    a tree like `params`, with more leaves.
  """
  found = flax.traverse_util.flatten_dict(params, sep='/')
  more = {}
  for path in flax.traverse_util.flatten_dict(wanted, sep='/').keys() - found:
    for name, other in copies:
      source = f'/{path}/'.replace(f'/{name}/', f'/{other}/', 1)[1:-1]
      if source != path and source in found:
        more[path] = found[source]
  if not more:
    return params
  return flax.traverse_util.unflatten_dict({**found, **more}, sep='/')


def _grouped(mismatched):
  """Lines about the result of `mismatches`, one per module."""
  groups: dict[str, list[str]] = {}
  for path, (there, here) in mismatched.items():
    line = f'  {path}: {there} there, {here} here'
    groups.setdefault('/'.join(path.split('/')[:2]), []).append(line)
  lines = []
  for name, group in groups.items():
    more = f', and {len(group) - 1} more in {name}' if len(group) > 1 else ''
    lines.append(group[0] + more)
  return differences.shortened(lines)


def folder_to_resume(
  workdir: str | os.PathLike, resume_from: str | os.PathLike | None
) -> str | os.PathLike | None:
  """The folder of the run to resume, None for a new run.

  Args:
    workdir: folder of the run; it is resumed if it has a checkpoint.
    resume_from: folder to resume otherwise, or None.

  Raises:
    ConfigError: `resume_from` is needed and has no checkpoint.
  """
  if workdirs.saved_steps(workdir) or not resume_from:
    return workdir if workdirs.saved_steps(workdir) else None
  workdirs.load_config(resume_from, allow=None)
  if not workdirs.saved_steps(resume_from):
    raise ConfigError(f"--resume_from='{resume_from}' has no checkpoint yet")
  return resume_from


def size_changes(
  workdir: str | os.PathLike | None, batch_size: int
) -> tuple[tuple[int, int], ...]:
  """The changes of the batch size of a run, see `schedule.Clock`.

  Args:
    workdir: folder of the run, None for a new run.
    batch_size: batch size from now on.
  """
  saved = saved_position(workdir) if workdir else {}
  try:
    return stream.changes(saved['batches'], batch_size)
  except (KeyError, TypeError, ValueError):
    return ()  # the state of another kind of iterator


@dataclasses.dataclass(frozen=True)
class Wanted:
  """Arguments of `loop.train` about the source of the state."""

  init_from: str | os.PathLike | None = None
  init_partial: bool = False
  resume_from: str | os.PathLike | None = None
  change: bool = False


def first_state(
  state_init: StateInit,
  workdir: pathlib.Path,
  checkpoints: Checkpoints,
  position: Position,
  wanted: Wanted,
  memory: Memory | None = None,
) -> tuple[TrainState, int, str]:
  """The first state of a run, its step, and words about its source.

  Args:
    state_init: creates states.
    workdir: folder of the run, which may have imported weights.
    checkpoints: checkpoints of the run, which have priority.
    position: position in the data; it is set to that of the checkpoint.
    wanted: source of the state without a checkpoint.
    memory: copies in memory, which count if they are newer.

  Raises:
    ConfigError, DataError: see `loop.train`.
  """
  put = position.set_state
  if memory is not None:
    newest = checkpoints.latest or 0
    held = memory.restore(state_init.abstract, put, checkpoints.facts, newest)
    if held:
      return *held, 'resuming from memory after'
  found = checkpoints.restore(state_init.abstract, put, wanted.change)
  if found:
    return *found, 'resuming after'
  if wanted.resume_from:
    folder = pathlib.Path(wanted.resume_from) / workdirs.CHECKPOINTS
    other = Checkpoints(folder, checkpoints.facts, read_only=True)
    found = other.restore(state_init.abstract, put, wanted.change)
    other.close()
    assert found is not None  # `folder_to_resume` has found one
    return *found, f'resuming {wanted.resume_from} after'
  if wanted.init_from:
    state, source = state_init.with_params(
      wanted.init_from, wanted.init_partial
    )
    return state, 0, f'{source},'
  if workdirs.holds_run(workdir) and (workdir / workdirs.IMPORTED).is_dir():
    return state_init.with_params(workdir)[0], 0, 'imported weights,'
  return state_init.fresh(), 0, 'fresh start,'


def trace_step(
  task: Task,
  placement: Placement,
  state: Any,
  frozen: Any,
  batch: Any,
  skips: bool = False,
) -> tuple[Any, list[str]]:
  """Traces the train step.

  Args:
    task: the task.
    placement: placement of the arrays.
    state: arrays on devices, or shapes, dtypes and shardings; it is donated.
    frozen, batch: likewise, not donated.
    skips: whether a step that is not finite leaves the state as it was.

  Returns:
    `jax.stages.Traced` of (state, frozen, batch) -> (state, (m,) float32
    metrics), and the names of the metrics.
  """
  names: list[str] = []

  def step(state, frozen, batch):
    after, metrics = task.step(state, frozen, batch)
    if skips:
      after, metrics = divergence.skip(state, after, metrics)
    names[:] = sorted(metrics)
    # One array of all metrics needs one transfer instead of twenty.
    packed = jnp.stack([metrics[k].astype(jnp.float32) for k in names])
    return after, packed

  shardings = jax.tree.map(lambda x: x.sharding, state)
  out = (shardings, placement.whole)
  with placement.scope(), assemble.fitting():
    jitted = jax.jit(step, donate_argnums=0, out_shardings=out)
    return jitted.trace(state, frozen, batch), names


def compile_step(
  traced_step: jax.stages.Traced, placement: Placement
) -> tuple[Callable, str]:
  """Compiles the train step.

  Args:
    traced_step: result of `trace_step`.
    placement: placement of the arrays.

  Returns:
    (state, frozen, batch) -> (state, (m,) float32 metrics), and a line about
    compile time and memory.
  """
  start = time.perf_counter()
  with placement.scope():
    compiled = compile_lowered(traced_step.lower())
  seconds = time.perf_counter() - start
  text = f'compiled the step in {seconds:.1f} s'
  memory = compiled.memory_analysis()
  if memory is not None:
    held = memory.argument_size_in_bytes / 2**20
    work = memory.temp_size_in_bytes / 2**20
    text += f'; per device {held:.1f} MiB state and batch, {work:.1f} MiB work'
  return compiled, text


def compile_lowered(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
  """Compiles a lowered train step, under the scope of its mesh.

  For bfloat16 on a CPU, loop-invariant code motion is off. It would convert the
  inputs of the backward loop to float32, for all layers at once: for VAR-d16
  these are 0.8 GiB, and a step takes 11.2 s instead of 10.1 (two cores of an
  EPYC with avx512_bf16).
  """
  options: dict[str, str | bool] = {}
  if traced.on_cpu() and 'xbf16>' in lowered.as_text():
    options = {'xla_disable_hlo_passes': 'while-loop-invariant-code-motion'}
  return lowered.compile(options)


def describe(state: TrainState, mesh: Any) -> str:
  """A line such as '1,234,567 parameters on 8 x cpu (data=8)'."""
  count = sum(x.size for x in jax.tree.leaves(state.params))
  axes = ', '.join(f'{k}={v}' for k, v in mesh.shape.items() if v > 1)
  where = f' ({axes})' if axes else ''
  kind = mesh.devices.flat[0].device_kind
  return f'{count:,} parameters on {mesh.size} x {kind}{where}'
