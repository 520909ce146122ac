"""The state that a run starts or goes on with, and its compiled step."""

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from arvision.build import ConfigError
from arvision.layers import traced
from arvision.parallel.host import Placement
from arvision.tasks import assemble
from arvision.tasks.base import Task, TrainState
from arvision.training import workdir as workdirs
from arvision.training.between import Position
from arvision.training.checkpoint import Checkpoints, check_shapes, load_params


class Origin:
  """Where a state comes from: the task's own `init`, or files.

  Attributes:
    abstract: shapes, dtypes and shardings of the state, without `frozen`.
  """

  def __init__(self, task: Task, placement: Placement, seed: int):
    """Finds shapes and shardings; computes nothing.

    Raises:
      ConfigError: parameters that the mesh does not divide.
    """
    self._task = task
    self._key = jax.random.key(seed)
    with assemble.fitting():
      boxed = jax.eval_shape(self._bare, self._key)
    self._shardings = placement.rules.shardings(placement.mesh, boxed)
    self.abstract = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      nn.unbox(boxed),
      self._shardings,
    )

  def _bare(self, key):
    return self._task.init(key).replace(frozen={})

  def fresh(self) -> TrainState:
    """A new state, made where it lies."""

    def init(key):
      return nn.unbox(self._bare(key))

    return jax.jit(init, out_shardings=self._shardings)(self._key)

  def with_params(self, workdir: str | os.PathLike) -> TrainState:
    """A new state with the parameters of another run, its averages too.

    Raises:
      ConfigError: other parameters than those of this config.
    """
    params = load_params(workdir, 'raw')[1]
    state = self.fresh()
    # Released tokenizers come without a discriminator.
    absent = {k: state.params[k] for k in state.params if k not in params}
    params = {**params, **absent}
    check_shapes(params, self.abstract.params, f'--init_from={workdir}')

    def take(state, params):
      ema = {
        decay: jax.tree.map(jnp.copy, {k: params[k] for k in average})
        for decay, average in state.ema.items()
      }
      return state.replace(params=params, ema=ema)

    return jax.jit(take, out_shardings=self._shardings)(state, params)


def first_state(
  origin: Origin,
  config: ConfigDict,
  workdir: pathlib.Path,
  checkpoints: Checkpoints,
  position: Position,
  init_from: str | None,
  resume_from: str | None,
) -> tuple[TrainState, int, str]:
  """The state that a run starts with, its step, and where it is from.

  Args:
    origin: of fresh states.
    config: whole config.
    workdir: of the run; its imported weights come before a fresh start.
    checkpoints: of the run; they go before everything else.
    position: is set to that of the checkpoint.
    init_from, resume_from: see `loop.train`.

  Raises:
    ConfigError, DataError: see `loop.train`.
  """
  found = checkpoints.restore(origin.abstract, position.set_state)
  if found:
    return *found, 'going on after'
  if resume_from:
    found = _from_run(origin, config, checkpoints.facts, position, resume_from)
    return *found, f'going on from {resume_from} after'
  if init_from:
    return origin.with_params(init_from), 0, f'weights of {init_from},'
  if (workdir / workdirs.IMPORTED).is_dir():
    return origin.with_params(workdir), 0, 'imported weights,'
  return origin.fresh(), 0, 'fresh start,'


def _from_run(origin, config, facts, position, workdir):
  """The newest checkpoint of another run of the same config."""
  workdirs.load_config(workdir)
  workdirs.check_same(config, workdir)
  folder = pathlib.Path(workdir) / workdirs.CHECKPOINTS
  found = None
  if folder.is_dir():
    other = Checkpoints(folder, facts, read_only=True)
    found = other.restore(origin.abstract, position.set_state)
    other.close()
  if found is None:
    raise ConfigError(f"--resume_from='{workdir}' has no checkpoint yet")
  return found


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
    state, metrics = task.step(state.replace(frozen=frozen), batch)
    names[:] = sorted(metrics)
    # One array of all metrics: reading it is one transfer, not twenty.
    packed = jnp.stack([metrics[k].astype(jnp.float32) for k in names])
    return state.replace(frozen={}), packed

  shardings = jax.tree.map(lambda x: x.sharding, state)
  out = (shardings, placement.whole)
  with placement.scope(), assemble.fitting():
    jitted = jax.jit(step, donate_argnums=0, out_shardings=out)
    return jitted.trace(state, frozen, batch), names


def compile_step(
  task: Task, placement: Placement, state: TrainState, frozen: Any, batch: Any
) -> tuple[Callable, list[str], str]:
  """The one program of a run.

  Args:
    task, placement, state, frozen, batch: see `trace_step`; on devices.

  Returns:
    (state, frozen, batch) -> (state, (m,) float32 metrics); the names of
    those metrics; and a line about time and memory.
  """
  start = time.perf_counter()
  step, names = trace_step(task, placement, state, frozen, batch)
  with placement.scope():
    compiled = compile_lowered(step.lower())
  seconds = time.perf_counter() - start
  text = f'compiled the step in {seconds:.1f} s'
  memory = compiled.memory_analysis()
  if memory is not None:
    held = memory.argument_size_in_bytes / 2**20
    work = memory.temp_size_in_bytes / 2**20
    text += f'; per device {held:.1f} MiB state and batch, {work:.1f} MiB work'
  return compiled, names, text


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
