"""Five steps of the published training recipes, with our task and optimizer."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arvision.configs.var import parts
from arvision.importers import llamagen as llamagen_table
from arvision.importers import table
from arvision.importers import var as var_table
from arvision.tasks.autoregressive import Autoregressive
from arvision.tasks.base import TrainState
from arvision.training.optim import DecayRule, Optimizer
from arvision.training.schedule import Clock
from tests.parity.case import Case
from tests.parity.systems import llamagen, var

INPUTS = {'label', 'idx', 'teacher_input', 'lr', 'weight_decay'}


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded:
  """A schedule that follows a recorded array."""

  values: np.ndarray

  def make(self, peak: float, clock: Clock):
    values = jnp.asarray(peak * self.values, jnp.float32)
    return lambda step: values[step]


@dataclasses.dataclass(frozen=True)
class NoTokenizer:
  """In the place of a tokenizer: binds the recorded input of a step."""

  scales: tuple[int, ...]

  def bind(self, variables: dict[str, Any]) -> var.Teacher:
    return var.Teacher(variables['rows'], self.scales)


def train(case: Case, module: Any, form: table.Table) -> Iterator:
  """Takes the steps, and compares the parameters in the official layout.

  Args:
    case: with batches, rates and fingerprints.
    module: `var` or `llamagen` beside this file.
    form: of the family.
  """
  io, official = case.io, case.meta['optimizer']
  config, model, params = module.loaded(case)
  exempt = parts.NO_DECAY if module is var else ()
  if len({*io['weight_decay']}) != 1:
    raise NotImplementedError('a weight decay that changes')
  optimizer = Optimizer(
    learning_rate=1.0,
    b1=official['betas'][0],
    b2=official['betas'][1],
    eps=official['eps'],
    weight_decay=float(io['weight_decay'][0]),
    decay=DecayRule(exempt=exempt),
    clip=official['clip'],
    schedule=Recorded(io['lr']),
  )
  tx = optimizer.make(Clock(len(io['lr']), io['idx'].shape[1], 1))
  model = model.clone(condition=model.condition.clone(drop=0.0))
  task = Autoregressive(
    model=model,
    sampler=None,
    tokenizer=NoTokenizer(tuple(case.args.get('patch_nums', ()))),
    tx=tx,
    image_shape=(1, 1, 1),
    classes=config.condition.classes,
    ema=(),
  )
  params = jax.tree.map(jnp.asarray, params)
  state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), {})
  step = jax.jit(task.step)
  losses, norms = [], []
  for i in range(len(io['lr'])):
    frozen = {}
    if 'teacher_input' in io:
      frozen = {'tokenizer': {'rows': jnp.asarray(io['teacher_input'][i])}}
    else:
      frozen = {'tokenizer': {'rows': None}}
    batch = {'tokens': io['idx'][i], 'label': io['label'][i]}
    state, metrics = step(state.replace(frozen=frozen), batch)
    losses.append(metrics['loss'])
    norms.append(metrics['gradient_norm'])
  yield 'loss', np.array(losses)
  yield 'grad_norm', np.array(norms)

  grids = ((1, 1),)  # only buffers depend on it
  before = table.to_weights(form, jax.device_get(params), grids)
  after = table.to_weights(form, jax.device_get(state.params), grids)
  keys = case.meta['fingerprint_keys']
  start = [np.asarray(before[k], np.float64) for k in keys]
  end = [np.asarray(after[k], np.float64) for k in keys]
  change = [b - a for a, b in zip(start, end)]
  for name, arrays in (('init', start), ('final', end)):
    yield f'{name}_sum', np.array([a.sum() for a in arrays])
    yield f'{name}_sumsq', np.array([(a**2).sum() for a in arrays])
    yield f'{name}_first4', np.array([_first4(a) for a in arrays])
  yield 'final_delta_abs_sum', np.array([np.abs(d).sum() for d in change])
  yield 'final_delta_sumsq', np.array([(d**2).sum() for d in change])


def _first4(array):
  flat = array.ravel()[:4]
  return np.pad(flat, (0, 4 - len(flat)))


def limits(case: Case, name: str) -> np.ndarray:
  """The largest differences allowed, one per entry of an array.

  Source: `suggested` of the case, in words there.
  """
  io, suggested = case.io, case.meta['suggested']
  wanted = io[name]
  if name in ('loss', 'grad_norm'):
    return suggested[f'{name}_rel'] * np.abs(wanted)
  when = name.split('_')[0]
  sizes = [
    case.meta['weights'][k]['shape'] for k in case.meta['fingerprint_keys']
  ]
  count = np.array([np.prod(s) for s in sizes])
  rms = np.sqrt(io[f'{when}_sumsq'] / count)
  if name.endswith('_delta_abs_sum'):
    share = np.maximum(2e-4, 20 * io['noise_final_delta_abs_sum'])
    return share * np.abs(wanted)
  if name.endswith('_delta_sumsq'):
    # Squares double the relative difference.
    share = np.maximum(2e-4, 20 * io['noise_final_delta_abs_sum'])
    return 2 * share * np.abs(wanted)
  if name.endswith('_sumsq'):
    return suggested['sumsq_rel'] * np.abs(wanted)
  if name.endswith('_sum'):
    return np.maximum(1e-6, 20 * io['noise_final_sum']) * count * rms
  noise = np.maximum(1e-5, 20 * io['noise_final_first4'])
  return (noise * rms)[:, None]


def var_steps(case: Case) -> Iterator[tuple[str, Any]]:
  return train(case, var, var_table.Transformer())


def llamagen_steps(case: Case) -> Iterator[tuple[str, Any]]:
  return train(case, llamagen, llamagen_table.Transformer())
