"""Silent data corruption: finds a device that computes or stores wrong bits.

`config.corruption.every` says how often, and the state is checked before every
save too:

- Copies. All devices that hold the same part of an array must hold the same
  bits: parameters, averages, the optimizer's state, frozen weights.
- Computation. Every device computes the loss and the gradient of a micro-batch,
  and another device does so with the same examples and keys. The bits must be the
  same. A third device decides who is wrong.
- Rest. Between a check and the end of the evaluations that follow, no bit of the
  state may change, whether it has copies or not.

The programs of the checks are apart from the train step, so a run with them has
the bits of a run without.
"""

import collections
import functools
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from arvision.errors import ConfigError
from arvision.parallel import copies, host
from arvision.parallel.mesh import AXES
from arvision.parallel.rules import BATCH_AXES
from arvision.tasks.base import GradientTask, TrainState, accumulate
from arvision.training.trees import by_path

_HOST_NAME = 64


class Corrupted(RuntimeError):
  """Training stopped because bits differ between devices."""


class Guard:
  """Checks a state for silent corruption.

  Attributes:
    seconds: time of all checks.
  """

  def __init__(
    self,
    task: GradientTask,
    placement: host.Placement,
    frozen: Any,
    workdir: Any,
  ):
    """Compiles nothing yet.

    Args:
      task: the task.
      placement: its mesh.
      frozen: frozen weights, on devices.
      workdir: folder of the run, for messages.

    Raises:
      ConfigError: a task whose gradient cannot be computed apart from its step.
    """
    if not isinstance(task, GradientTask):
      raise ConfigError(
        f'config.corruption.every: {type(task).__name__} is no GradientTask, so '
        'its gradients cannot be computed again; set config.corruption.every'
        '.steps=0'
      )
    self.seconds, self._checks = 0.0, 0
    self._task, self._placement = task, placement
    self._frozen, self._workdir = frozen, workdir
    self._devices = list(placement.mesh.devices.flat)
    self._hosts = _host_names()
    self._names: list[str] = []
    self._moves: dict[int, Callable] = {}
    self._good: int | None = None
    self._resting: np.ndarray | None = None

  def start(self, state: TrainState, step: int, batch: Mapping) -> str:
    """Compiles the checks, and checks the first state.

    Args:
      state: state on devices.
      step: optimizer steps taken.
      batch: a batch on the host.

    Returns:
      a line about them.

    Raises:
      Corrupted, ConfigError: see `check`.
    """
    began = time.perf_counter()
    leaves = self._leaves(state)
    mesh = self._placement.mesh
    specs = tuple(x.sharding.spec for x in leaves.values())
    sums = copies.on_every_device(
      lambda *parts: copies.checksums(parts), mesh, specs
    )
    whole = self._placement.whole
    self._sums = jax.jit(sums, out_shardings=whole)
    self._names = list(leaves)
    self._first = copies.holders(list(leaves.values()), mesh)
    found = self._read(state)
    self._check_copies(found, step, None)
    # Frozen weights rest during the whole run.
    self._at_start = found
    part = self._part(batch, 0)
    gradient = copies.on_every_device(
      functools.partial(gradient_sums, self._task),
      mesh,
      (PartitionSpec(), PartitionSpec(), PartitionSpec(AXES)),
    )
    traced = jax.jit(gradient, out_shardings=whole)
    lowered = traced.lower(_read_by_objective(state), self._frozen, part)
    self._gradient: Callable = lowered.compile()
    self._check_computation(state, step, batch, None)
    self._good = step
    seconds = time.perf_counter() - began
    rows = len(part[1]) // len(self._devices)
    return (
      f'checks for corruption: {len(self._names)} arrays, and a micro-batch of '
      f'{rows} examples on each of {len(self._devices)} devices; compiled in '
      f'{seconds:.1f} s'
    )

  def check(
    self, state: TrainState, step: int, batch: Mapping, saved: int | None
  ) -> None:
    """Checks the copies, and computes a micro-batch twice.

    Args:
      state: state on devices.
      step: optimizer steps taken.
      batch: last batch, on the host.
      saved: step of the newest checkpoint, None without any.

    Raises:
      Corrupted: bits differ; with the device.
      ConfigError: the program gives other bits every time.
    """
    began = time.perf_counter()
    sums = self._read(state)
    self._check_copies(sums, step, saved)
    frozen = [i for i, n in enumerate(self._names) if n.startswith('frozen/')]
    self._check_rest(self._at_start, sums, frozen, step, saved)
    self._check_computation(state, step, batch, saved)
    self._resting, self._good = sums, step
    self._checks += 1
    self.seconds += time.perf_counter() - began

  def rested(self, state: TrainState, step: int, saved: int | None) -> None:
    """Checks that no bit of a state changed since `check`, if that was called.

    Raises:
      Corrupted: one did.
    """
    if self._resting is None:
      return
    began = time.perf_counter()
    every = range(len(self._names))
    self._check_rest(self._resting, self._read(state), every, step, saved)
    self._resting = None
    self.seconds += time.perf_counter() - began

  def text(self, worked: float) -> str:
    """A line about the cost; `worked` are the seconds in steps."""
    share = 100 * self.seconds / max(worked, 1e-9)
    return (
      f'{self._checks} checks for corruption took {self.seconds:.1f} s, '
      f'{share:.1f} % of the time in steps'
    )

  # ------------------------------------------------------------------ checks

  def _leaves(self, state):
    arrays = {**by_path(state), **by_path({'frozen': self._frozen})}
    return {k: x for k, x in arrays.items() if isinstance(x, jax.Array)}

  def _read(self, state):
    """(devices, arrays) checksums."""
    return np.asarray(self._sums(*self._leaves(state).values()))

  def _check_copies(self, sums, step, saved):
    odd = copies.odd_copies(sums, self._first)
    if odd:
      where = self._named(odd[0].devices)
      more = f' and {len(odd) - 1} more arrays' if len(odd) > 1 else ''
      self._stop(
        f'{self._names[odd[0].array]}{more} on {where}: its bits differ from '
        f'those of its other copies ({odd[0].copies} in all) after step {step}',
        saved,
      )

  def _check_rest(self, before, now, arrays, step, saved):
    for i in arrays:
      devices = np.flatnonzero(before[:, i] != now[:, i])
      if len(devices):
        self._stop(
          f'{self._names[i]} on {self._named(devices)}: its bits changed while '
          f'nothing wrote to it, at step {step}',
          saved,
        )

  def _check_computation(self, state, step, batch, saved):
    mine = self._compute(state, batch, 0)
    count = len(self._devices)
    others = self._compute(state, batch, 1)
    rows = np.flatnonzero((mine != others).any(1))
    if not len(rows):
      return
    again = self._compute(state, batch, 0)
    # A device that contradicts itself is at fault, unless all of them do.
    unstable = np.flatnonzero((mine != again).any(1))
    if len(unstable) == count and (count > 1 or (others != again).any()):
      raise ConfigError(
        'config.corruption.every: the same gradient has other bits when the same '
        'device computes it again, so devices cannot be compared. Try '
        'XLA_FLAGS=--xla_gpu_deterministic_ops=true, or set '
        'config.corruption.every.steps=0'
      )
    devices = list(unstable)
    if not devices and count > 2:
      third = self._compute(state, batch, 2)
      devices = _blamed(rows, (mine, others, third))
    if not devices:
      devices = sorted({(i + k) % count for i in rows for k in (0, 1)})
    names = self._gradient_names(state, batch)
    array = int(np.flatnonzero((mine != others).any(0))[0])
    self._stop(
      f'{names[array]} of a micro-batch on {self._named(devices)}: its bits '
      f'differ from those that another device computed after step {step}',
      saved,
    )

  def _compute(self, state, batch, shift):
    """(devices, arrays) checksums of losses and gradients.

    Row i is of the micro-batch of device i, computed by device i + shift.
    """
    part = self._part(batch, shift)
    found = self._gradient(_read_by_objective(state), self._frozen, part)
    return np.roll(np.asarray(found), -shift, 0)

  def _part(self, batch, shift):
    """The micro-batch of every device, and its rows, on another device."""
    shift %= len(self._devices)
    if shift not in self._moves:
      self._moves[shift] = self._move(shift)
    return self._moves[shift](self._placement.put_batch(batch))

  def _move(self, shift):
    """A program that gives the micro-batch of device i to i + shift."""
    count, placement = len(self._devices), self._placement
    shares = placement.batch_parts * self._task.accumulate
    ring = [(i, (i + shift) % count) for i in range(count)]

    def cut(x, size):
      x = x[: size // shares]
      return jax.lax.ppermute(x, AXES, ring) if shift else x

    def move(batch):
      size = len(jax.tree.leaves(batch)[0])
      mapped = jax.shard_map(
        lambda tree: jax.tree.map(lambda x: cut(x, size), tree),
        mesh=placement.mesh,
        in_specs=PartitionSpec(BATCH_AXES),
        out_specs=PartitionSpec(AXES),
        check_vma=False,
      )
      return mapped((batch, jnp.arange(size)))

    return jax.jit(move)

  def _gradient_names(self, state, batch):
    """Names of the arrays that `gradient_sums` sums up."""
    part = self._part(batch, 0)
    found = jax.eval_shape(
      functools.partial(_gradient, self._task),
      *(_read_by_objective(state), self._frozen, part),
    )
    return list(by_path(found))

  # ---------------------------------------------------------------- messages

  def _named(self, devices):
    """Words for the devices at these positions in the mesh."""
    texts = []
    for i in devices:
      device = self._devices[int(i)]
      owner = device.process_index
      texts.append(
        f'device {device.id} ({device.device_kind}, process {owner} on '
        f'{self._hosts[owner]})'
      )
    return texts[0] if len(texts) == 1 else f'one of {", ".join(texts)}'

  def _stop(self, fault, saved):
    since = '' if self._good is None else f'; step {self._good} was checked'
    kept = 'there is no checkpoint yet'
    if saved is not None:
      kept = f'the checkpoint of step {saved} was checked before its save'
    raise Corrupted(
      f'{fault}{since}. Training stopped and saved nothing; {kept} (in '
      f"'{self._workdir}'). The same command resumes; if the device is named "
      'again, take it out of service'
    )


def _blamed(rows, runs):
  """Positions of devices that two others contradict.

  Args:
    rows: micro-batches whose results differ.
    runs: results (devices, arrays) of three runs; micro-batch i was computed by
      device i + k in run k.
  """
  count = len(runs[0])
  blame: collections.Counter = collections.Counter()
  for i in rows:
    odd = copies.minority([run[i].tobytes() for run in runs])
    if len(odd) == 1:
      blame[(int(i) + odd[0]) % count] += 1
  return sorted(blame)


def _host_names():
  """The name of the host of every process."""
  name = socket.gethostname().encode()[:_HOST_NAME].ljust(_HOST_NAME)
  own = np.frombuffer(name, np.uint8)[None]
  every = host.gather(own) if jax.process_count() > 1 else own
  return [row.tobytes().decode(errors='replace').strip() for row in every]


def _read_by_objective(state):
  return state.replace(opt_state=())


def _gradient(task, state, frozen, part):
  """Gradient, metrics and other sums of a micro-batch."""
  batch, row = part

  def objective(params, rows):
    if task.trained is not None:
      params = task.trained.stop_gradients(params)
    draw = task.draw(state, rows['row'])
    return task.objective(params, state, frozen, rows, draw)

  rows = {**task.rows(state, frozen, batch), 'row': row}
  gradient, metrics, aux = accumulate(objective, state.params, rows, 1)
  return jax.tree.map(
    jnp.asarray, {'loss': metrics, 'gradient': gradient, 'sum': aux}
  )


def gradient_sums(
  task: GradientTask, state: TrainState, frozen: Any, part: Any
) -> jax.Array:
  """Checksums of the loss and the gradient of a micro-batch on one device.

  Args:
    task: the task.
    state: state without that of the optimizer, whole.
    frozen: frozen weights.
    part: the batch of some examples, and their rows (m,) int32 in the whole
      batch.
  """
  return copies.checksums(jax.tree.leaves(_gradient(task, state, frozen, part)))
