"""The state that a run starts or goes on with, and its compiled step."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.data import stream
from arvision.errors import ConfigError
from arvision.kernels import traced
from arvision.parallel import host
from arvision.parallel.host import Placement
from arvision.tasks import assemble
from arvision.tasks.base import Task, TrainState
from arvision.training import differences
from arvision.training import workdir as workdirs
from arvision.training.checkpoint import Checkpoints, saved_position
from arvision.training.step_hooks import Position
from arvision.training.trees import by_path, unlike
from arvision.training.weights import load_params


class StateInit:
  """Where a state comes from: the task's own `init`, or files.

  Attributes:
    abstract: shapes, dtypes and shardings of the state.
  """

  def __init__(self, task: Task, placement: Placement, seed: int):
    """Finds shapes and shardings; computes nothing.

    Raises:
      ConfigError: parameters that the mesh does not divide.
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
    """A new state, made where it lies."""

    def init(key):
      return nn.unbox(self._task.init(key))

    return jax.jit(init, out_shardings=self._shardings)(self._key)

  def with_params(
    self, workdir: str | os.PathLike, partial: bool = False
  ) -> tuple[TrainState, str]:
    """A new state with the raw parameters of another run, its averages too.

    A network that the other run lacks is fresh: released tokenizers come
    without a discriminator.

    Args:
      workdir: of the other run.
      partial: whether arrays that do not fit may be fresh too.

    Returns:
      The state, and what was taken, in a line.

    Raises:
      ConfigError: other parameters than those of this config, or none that fit.
    """
    params, step = load_params(workdir, 'raw', allow=None)[1:]
    wanted = self.abstract.params
    absent = [name for name in wanted if name not in params]
    ours = {name: wanted[name] for name in wanted if name not in absent}
    odd = unlike(params, ours)
    taken = {k: x for k, x in by_path(params).items() if k not in odd}
    if odd and not (partial and taken):
      advice = 'Nothing of it fits; name another run'
      if taken:
        advice = (
          f'--init_partial takes the {len(taken)} arrays that fit, and leaves '
          'these as they are at the start of training'
        )
      raise ConfigError(
        f'--init_from={workdir} has other parameters than this config:\n'
        f'{_grouped(odd)}\n{advice}'
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
    said = f'weights of {workdir} at step {step} (raw, not a running average)'
    if absent:
      said += f', fresh {" and ".join(sorted(absent))}'
    if odd:
      host.say(
        f'--init_from={workdir}: {len(taken)} arrays are taken, and what does '
        f'not fit starts fresh:\n{_grouped(odd)}'
      )
    return state, said


def _grouped(odd):
  """Lines of `unlike`, one for arrays that lie together."""
  groups: dict[str, list[str]] = {}
  for path, (there, here) in odd.items():
    line = f'  {path}: {there} there, {here} here'
    groups.setdefault('/'.join(path.split('/')[:2]), []).append(line)
  lines = []
  for name, group in groups.items():
    more = f', and {len(group) - 1} more in {name}' if len(group) > 1 else ''
    lines.append(group[0] + more)
  return differences.shortened(lines)


def goes_on(
  workdir: str | os.PathLike, resume_from: str | os.PathLike | None
) -> str | os.PathLike | None:
  """The folder whose run is gone on with, None where a run starts.

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
  """Where the batch size of a run changed, see `schedule.Clock`.

  Args:
    workdir: of the run, None for one that starts.
    batch_size: from now on.
  """
  saved = saved_position(workdir) if workdir else {}
  try:
    return stream.changes(saved['batches'], batch_size)
  except (KeyError, TypeError, ValueError):
    return ()  # an iterator with a state of its own


@dataclasses.dataclass(frozen=True)
class Wanted:
  """Where a state shall come from, see `loop.train`."""

  init_from: str | os.PathLike | None = None
  init_partial: bool = False
  resume_from: str | os.PathLike | None = None
  change: bool = False


def first_state(
  origin: StateInit,
  workdir: pathlib.Path,
  checkpoints: Checkpoints,
  position: Position,
  wanted: Wanted,
) -> tuple[TrainState, int, str]:
  """The state that a run starts with, its step, and where it is from.

  Args:
    origin: of fresh states.
    workdir: of the run; its imported weights come before a fresh start.
    checkpoints: of the run; they go before everything else.
    position: is set to that of the checkpoint.
    wanted: where it comes from without a checkpoint.

  Raises:
    ConfigError, DataError: see `loop.train`.
  """
  put = position.set_state
  found = checkpoints.restore(origin.abstract, put, wanted.change)
  if found:
    return *found, 'going on after'
  if wanted.resume_from:
    folder = pathlib.Path(wanted.resume_from) / workdirs.CHECKPOINTS
    other = Checkpoints(folder, checkpoints.facts, read_only=True)
    found = other.restore(origin.abstract, put, wanted.change)
    other.close()
    assert found is not None  # `goes_on` has seen one
    return *found, f'going on from {wanted.resume_from} after'
  if wanted.init_from:
    state, said = origin.with_params(wanted.init_from, wanted.init_partial)
    return state, 0, f'{said},'
  if workdirs.holds_run(workdir) and (workdir / workdirs.IMPORTED).is_dir():
    return origin.with_params(workdir)[0], 0, 'imported weights,'
  return origin.fresh(), 0, 'fresh start,'


def trace_step(
  task: Task, placement: Placement, state: Any, frozen: Any, batch: Any
) -> tuple[Any, list[str]]:
  """The one program of a run, traced and not yet compiled.

  Args:
    task: what is trained.
    placement: of the arrays.
    state: arrays on devices, or their shapes, dtypes and shardings; the
      program takes its memory over.
    frozen, batch: likewise.

  Returns:
    `jax.stages.Traced` of (state, frozen, batch) -> (state, (m,) float32
    metrics), and the names of those metrics.
  """
  names: list[str] = []

  def step(state, frozen, batch):
    state, metrics = task.step(state, frozen, batch)
    names[:] = sorted(metrics)
    # One array of all metrics: reading it is one transfer, not twenty.
    packed = jnp.stack([metrics[k].astype(jnp.float32) for k in names])
    return state, packed

  shardings = jax.tree.map(lambda x: x.sharding, state)
  out = (shardings, placement.whole)
  with placement.scope(), assemble.fitting():
    jitted = jax.jit(step, donate_argnums=0, out_shardings=out)
    return jitted.trace(state, frozen, batch), names


def compile_step(
  traced_step: jax.stages.Traced, placement: Placement
) -> tuple[Callable, str]:
  """The one program of a run.

  Args:
    traced_step: of `trace_step`.
    placement: of its arrays.

  Returns:
    (state, frozen, batch) -> (state, (m,) float32 metrics), and a line about
    time and memory.
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
  """A train step compiled for where it was lowered, under the scope of its mesh.

  On a CPU nothing is moved out of the loops of a step in bfloat16. The compiler
  would make float32 of what the backward loop reads, of all layers at once: for
  VAR-d16 0.8 GiB, and a step takes 11.2 s in the place of 10.1 (two cores of an
  EPYC with avx512_bf16).
  """
  options: dict[str, str | bool] = {}
  if traced.on_cpu() and 'xbf16>' in lowered.as_text():
    options = {'xla_disable_hlo_passes': 'while-loop-invariant-code-motion'}
  return lowered.compile(options)


def describe(state: TrainState, mesh: Any) -> str:
  """'1,234,567 parameters on 8 devices (data=8)'."""
  count = sum(x.size for x in jax.tree.leaves(state.params))
  axes = ', '.join(f'{k}={v}' for k, v in mesh.shape.items() if v > 1)
  where = f' ({axes})' if axes else ''
  kind = mesh.devices.flat[0].device_kind
  return f'{count:,} parameters on {mesh.size} x {kind}{where}'
