"""Faults of one device, for tests: bits that flip in memory and in computation."""

import ctypes
import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from arvision.parallel.host import Placement
from arvision.parallel.mesh import AXES, make_mesh
from arvision.training import start
from arvision.training.corruption import Corrupted, Guard
from arvision.training.optim import Optimizer
from arvision.training.schedule import Clock
from arvision.training.trees import by_path
from tests.parts import training_toys as toys

BATCH = 32
# (kind, device, element, bit) of no fault.
NONE = (0, 0, 0, 0)
ACTIVATION, GRADIENT = 1, 2
# Steps between two checks of a trial.
EVERY = 3


def flip_in_memory(array: jax.Array, device: int, element: int, bit: int):
  """Flips a bit of an array in the memory of a CPU device."""
  jax.block_until_ready(array)
  shards = {s.device.id: s.data for s in array.addressable_shards}
  data = shards[device]
  where = element % data.size * data.dtype.itemsize * 8
  where += bit % (8 * data.dtype.itemsize)
  at = data.unsafe_buffer_pointer() + where // 8
  ctypes.c_ubyte.from_address(at).value ^= 1 << where % 8


def _flipped(x, fault):
  """x (m, ...) with a flipped bit, where this device computes it.

  A train step is partitioned by the compiler: there a device is known by its rows.
  """
  _, device, element, bit = fault
  if jax.sharding.get_abstract_mesh().manual_axes:
    here = jax.lax.axis_index(AXES) == device
    own, size = 0, x.size
  else:
    size = x.size // 8
    here, own = True, device * size
  words = jax.lax.bitcast_convert_type(x, jnp.uint32).reshape(-1)
  at = own + element % size
  word = words[at] ^ (jnp.uint32(1) << jnp.uint32(bit))
  words = words.at[at].set(jnp.where(here, word, words[at]))
  return jax.lax.bitcast_convert_type(words.reshape(x.shape), x.dtype)


def _faulty(x, fault):
  """x, with a fault of its value or of its gradient."""

  @jax.custom_vjp
  def pass_on(x, fault):
    return jnp.where(fault[0] == ACTIVATION, _flipped(x, fault), x)

  def forward(x, fault):
    return pass_on(x, fault), fault

  def backward(fault, g):
    wrong = jnp.where(fault[0] == GRADIENT, _flipped(g, fault), g)
    return wrong, np.zeros(4, jax.dtypes.float0)

  pass_on.defvjp(forward, backward)
  return pass_on(x, fault)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task(toys.Task):
  """The toy task with a fault behind its hidden layer.

  Attributes:
    fault: (kind, device, element, bit), from step `since` on, where a batch has
      no 'fault' of its own.
    since: steps before the fault.
  """

  fault: tuple[int, ...] = NONE
  since: int = 0

  def rows(self, state, frozen, batch):
    rows = super().rows(state, frozen, batch)
    fault = jnp.array(self.fault).at[0].multiply(state.step > self.since)
    every = jnp.tile(fault, (len(batch['label']), 1))
    return {**rows, 'fault': batch.get('fault', every)}

  def objective(self, params, state, frozen, rows, draw):
    hidden = params['hidden']
    x = rows['image'].reshape(-1, 16) @ hidden['kernel'] + hidden['bias']
    x = _faulty(jnp.tanh(x), rows['fault'][0])
    logits = x @ params['out']['kernel'] + params['out']['bias']
    each = -jax.nn.log_softmax(logits)
    each = jnp.take_along_axis(each, rows['label'][:, None], 1)[:, 0]
    seen = jnp.zeros((toys.CLASSES,), jnp.int32).at[rows['label']].add(1)
    return toys.Objective({'each': toys.Term(each)}, aux={'seen': seen})


def make_task(config, data, tx=None, frozen=None, steps=0):
  del data, steps
  options = {k: v for k, v in config.toy.items() if k != 'fault'}
  fault = tuple(config.toy.get('fault', NONE))
  return Task(
    tx=tx,
    ema=toys.Averages(tuple(config.ema)),
    seed=config.seed,
    frozen=frozen or {},
    fault=fault,
    **options,
  )


class Trials:
  """A training whose devices fail again and again.

  Attributes:
    leaves: path -> array of the first state.
  """

  def __init__(self, sizes: dict[str, int]):
    tx = Optimizer(0.05, weight_decay=0.1).make(Clock(1000, BATCH, 96))
    self._task = Task(tx=tx)
    place = self._place = Placement(make_mesh(sizes))
    weights = np.ones((4, 4), np.float32)
    self._frozen = place.put_whole({'other': {'kernel': weights}})
    self._init = start.StateInit(self._task, place, 0)
    self._batches = toys.Data().train(BATCH, 0)
    state, batch = self._init.fresh(), self._batch(NONE)
    self._guard = Guard(self._task, place, self._frozen, 'runs/a')
    self._guard.start(state, 0, batch)
    traced, _ = start.trace_step(
      self._task, place, state, self._frozen, place.put_batch(batch)
    )
    self._step, _ = start.compile_step(traced, place)
    self.leaves = {
      k: x for k, x in by_path(state).items() if x.size > 1 and 'extra' not in k
    }

  def _batch(self, fault):
    batch = next(self._batches)
    return {**batch, 'fault': np.tile(np.int32(fault), (BATCH, 1))}

  def run(self, rng, kind: str, steps: int = 12) -> tuple[int, str]:
    """Trains with a fault at a random step; '' for none.

    Returns:
      steps from the fault to its finding, -1 if it was not found; and what was
      said about it.
    """
    first = int(rng.integers(1, steps - EVERY))
    fault = (int(rng.integers(8)), int(rng.integers(2**16)))
    fault += (int(rng.integers(32)),)
    name = str(rng.choice(list(self.leaves)))
    state = self._init.fresh()
    for step in range(1, steps + 1):
      code = {'activation': ACTIVATION, 'gradient': GRADIENT}.get(kind, 0)
      failing = code and step > first
      batch = self._batch((code, *fault) if failing else NONE)
      on_device = self._place.put_batch(batch)
      state, _ = self._step(state, self._frozen, on_device)
      if kind == 'memory' and step == first:
        flip_in_memory(by_path(state)[name], *fault)
      if step % EVERY == 0:
        try:
          self._guard.check(state, step, batch, None)
          if kind == 'rest' and step > first:
            flip_in_memory(by_path(state)[name], *fault)
            first = step
          self._guard.rested(state, step, None)
        except Corrupted as error:
          named = f'device {fault[0]} (' in str(error).split(':')[0]
          return step - first, str(error) if named else f'wrong: {error}'
    return -1, ''


def trials(sizes: dict[str, int], count: int, kinds: Sequence[str]) -> dict:
  """Runs some trials of every kind, and one without a fault.

  Returns:
    kind -> (faults that were found in time, with their device; what was said).
  """
  made, rng = Trials(sizes), np.random.default_rng(0)
  assert made.run(rng, '', 60) == (-1, '')
  result = {}
  for kind in kinds:
    found = [made.run(rng, kind) for _ in range(count)]
    right = [said for late, said in found if 0 <= late <= EVERY]
    result[kind] = sum('wrong' not in said for said in right), right[:1]
  return result
