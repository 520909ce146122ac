"""Five steps of the published training recipes, with our task and optimizer."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import build
from arvision.configs.bar import parts as bar_parts
from arvision.configs.mar import parts as mar_parts
from arvision.configs.var import parts
from arvision.importers import llamagen as llamagen_table
from arvision.importers import table
from arvision.importers import var as var_table
from arvision.random import Replay
from arvision.tasks.autoregressive import Autoregressive
from arvision.tasks.base import TrainState, start_ema
from arvision.training.optim import DecayRule, Optimizer
from arvision.training.schedule import Clock
from tests.parity.case import Case, Part, System
from tests.parity.systems import bar, llamagen, mar, var, xar

INPUTS = {
  'label',
  'idx',
  'teacher_input',
  'lr',
  'weight_decay',
  'latent',
  'loss_time',
  'loss_noise',
  'loss_t',
  'orders',
  'num_masked',
  'mask',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Rates:
  """A schedule that follows a recorded array."""

  values: np.ndarray

  def make(self, peak: float, clock: Clock):
    values = jnp.asarray(peak * self.values, jnp.float32)
    return lambda step: values[step]


@dataclasses.dataclass(frozen=True)
class Recipe(Optimizer):
  """An optimizer whose weight decay follows a recorded array."""

  decays: tuple[float, ...] = ()

  def _decay(self, clock):
    values = jnp.asarray(self.decays, jnp.float32)
    return lambda step: values[step]


@dataclasses.dataclass(frozen=True)
class NoTokenizer:
  """Stands for a tokenizer: binds the recorded input of a step."""

  scales: tuple[int, ...] = ()

  def bind(self, variables: dict[str, Any]) -> var.Teacher:
    return var.Teacher(variables.get('rows'), self.scales)


@flax.struct.dataclass
class Recorded(Replay):
  """Recorded draws of a step; nothing is dropped."""

  def key(self, name: str) -> jax.Array:
    return jax.random.key(0)


class Replayed(Autoregressive):
  """The task, with the draws that lie beside the tokenizer's variables."""

  def objective(self, params, state, frozen, rows, draw):
    size = len(rows['row'])
    draw = Recorded({'null': jnp.ones(size), **frozen['draws']}, size=size)
    return super().objective(params, state, frozen, rows, draw)


@dataclasses.dataclass(frozen=True)
class Moment:
  """What was recorded of a step, besides its rate.

  Attributes:
    tokens: codes (b, t) or latents (b, t, c).
    teacher: (b, n, c) input that a codec hands out, or None.
    draws: name -> (b, ...) what the task draws.
  """

  tokens: np.ndarray
  teacher: np.ndarray | None = None
  draws: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def codes(case: Case, i: int) -> Moment:
  """The i-th step of methods without random draws."""
  io = case.io
  teacher = io['teacher_input'][i] if 'teacher_input' in io else None
  return Moment(io['idx'][i], teacher)


def cells(case: Case, i: int) -> Moment:
  """The i-th step of xAR."""
  io = case.io
  draws = xar.draws(io['loss_time'][i], io['loss_noise'][i])
  return Moment(xar.rows(io['latent'][i]), draws=draws)


def mar_moment(case: Case, i: int) -> Moment:
  """The i-th step of MAR."""
  io = {k: x[i] for k, x in case.io.items() if k in INPUTS}
  _, model = mar.built(case)
  recorded = [io[k] for k in ('orders', 'num_masked', 'loss_t', 'loss_noise')]
  return Moment(
    mar.tokens_of(case, io['latent']), draws=mar.draws(model, *recorded)
  )


def train(
  case: Case,
  module: Any,
  form: table.Table | None = None,
  moment: Callable[[Case, int], Moment] = codes,
  exempt: tuple[str, ...] = (),
  drop: float = 0.0,
) -> Iterator[tuple[str, Any]]:
  """Takes the steps, and compares the parameters in the official layout.

  Args:
    case: with batches, rates and fingerprints.
    module: one beside this file; `loaded(case)` gives config, model, parameters.
    form: of the family; None: as the config says.
    moment: case, number of a step -> what was recorded of it.
    exempt: see `DecayRule`.
    drop: share of labels that are dropped, where that was recorded.
  """
  io, official = case.io, case.optimizer
  official.says('kind', 'AdamW')
  # Rates are arrays; the rest says in words what the fingerprints show.
  official.ignore('weight_decay', 'schedule', 'decay_rule', 'ema_rule')
  official.ignore('decay', 'no_decay', 'raw')
  config, model, params = module.loaded(case)
  form = form or build(config.release, 'release')
  decays = io['weight_decay']
  optimizer = Recipe(
    learning_rate=1.0,
    b1=official['betas'][0],
    b2=official['betas'][1],
    eps=official['eps'],
    weight_decay=float(decays[0]),
    weight_decay_end=float(decays[-1]),
    decays=tuple(map(float, decays)),
    decay=DecayRule(exempt=exempt),
    clip=official['clip'] or 0.0,
    schedule=Rates(io['lr']),
  )
  tx = optimizer.make(Clock(len(io['lr']), io['label'].shape[1], 1))
  model = model.clone(condition=model.condition.clone(drop=drop))
  averages = _averages(case)
  task = Replayed(
    model=model,
    sampler=None,
    tokenizer=NoTokenizer(tuple(case.args.get('patch_nums', ()))),
    tx=tx,
    image_shape=(1, 1, 1),
    classes=config.condition.classes,
    ema=tuple(averages.values()),
    steps=len(io['lr']),
  )
  params = jax.tree.map(jnp.asarray, params)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=tx.init(params),
    ema=start_ema(params, task.ema),
  )
  step = jax.jit(task.step)
  losses, norms = [], []
  for i in range(len(io['lr'])):
    now = moment(case, i)
    frozen = {'tokenizer': {'rows': now.teacher}, 'draws': now.draws}
    batch = {'tokens': now.tokens, 'label': io['label'][i]}
    state, metrics = step(state, frozen, batch)
    losses.append(metrics['loss'])
    norms.append(metrics['gradient_norm'])
  yield 'loss', np.array(losses)
  yield 'grad_norm', np.array(norms)

  keys = case.meta['fingerprint_keys']

  def official_of(params):
    # Only buffers depend on the grids.
    weights = table.to_weights(form, jax.device_get(params), ((1, 1),))
    return [_told(case, key, np.float64(weights[key])) for key in keys]

  start, end = official_of(params), official_of(state.params)
  found = {name: official_of(state.ema[str(d)]) for name, d in averages.items()}
  for name, arrays in {'init': start, 'final': end, **found}.items():
    yield f'{name}_sum', np.array([a.sum() for a in arrays])
    yield f'{name}_sumsq', np.array([(a**2).sum() for a in arrays])
    yield f'{name}_first4', np.array([_first4(a) for a in arrays])
  change = [b - a for a, b in zip(start, end)]
  yield 'final_delta_abs_sum', np.array([np.abs(d).sum() for d in change])
  yield 'final_delta_sumsq', np.array([(d**2).sum() for d in change])
  for name, arrays in found.items():
    share = [
      np.sum((a - s) * d) / np.sum(d * d)
      for a, s, d in zip(arrays, start, change)
    ]
    # What only decays moves less than one digit: its noise is all there is.
    told = np.flatnonzero(io[f'noise_{name}_projection'] <= 0.1)
    yield f'{name}_projection', Part(np.array(share)[told], told)


def _told(case, key, array):
  """What the fingerprint of a tensor covers."""
  if 'fingerprint_slices' in case.meta and key.endswith('attn.qkv.bias'):
    # Not the biases of keys, whose gradient is rounding noise.
    return np.delete(array.reshape(3, -1), 1, 0).ravel()
  return array


def _averages(case):
  """Name of a recorded running average -> its decay."""
  decays = {'ema': case.optimizer.get('ema_rate'), 'ema09': 0.9}
  return {k: d for k, d in decays.items() if f'{k}_sum' in case.io}


def _first4(array):
  flat = array.ravel()[:4]
  return np.pad(flat, (0, 4 - len(flat)))


def limits(case: Case, name: str) -> np.ndarray:
  """The largest differences allowed, one per entry of an array.

  Source: `suggested` of the case, in words there.
  """
  io, suggested = case.io, case.meta['suggested']
  wanted = io[name]
  if not np.issubdtype(wanted.dtype, np.floating):
    return np.zeros(())
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
  if name.endswith('_projection'):
    least, factor = (5e-3, 5) if when == 'ema' else (1e-4, 20)
    share = np.maximum(least, factor * io[f'noise_{name}'])
    return share * np.abs(wanted)
  if name.endswith('_sumsq'):
    return suggested['sumsq_rel'] * np.abs(wanted)
  if name.endswith('_sum'):
    return np.maximum(1e-6, 20 * io['noise_final_sum']) * count * rms
  noise = np.maximum(1e-5, 20 * io['noise_final_first4'])
  return (noise * rms)[:, None]


def var_steps(case: Case) -> Iterator[tuple[str, Any]]:
  form = var_table.Transformer()
  return train(case, var, form, exempt=parts.NO_DECAY)


def llamagen_steps(case: Case) -> Iterator[tuple[str, Any]]:
  return train(case, llamagen, llamagen_table.Transformer())


def mar_steps(case: Case) -> Iterator[tuple[str, Any]]:
  return train(case, mar, moment=mar_moment, exempt=mar_parts.NO_DECAY)


def xar_steps(case: Case) -> Iterator[tuple[str, Any]]:
  return train(case, xar, moment=cells)


def bar_steps(case: Case) -> Iterator[tuple[str, Any]]:
  count = len(case.io['lr'])
  yield 'orders', np.stack([bar.orders(case, i) for i in range(count)])
  yield from train(
    case,
    bar,
    moment=lambda case, i: Moment(**bar.recorded(case, i)),
    exempt=bar_parts.NO_DECAY,
    drop=case.meta['training']['drop'],
  )


BAR_INPUTS = {
  *(INPUTS - {'orders'}),
  *(bar.GENERATOR_INPUTS - {'orders'}),
  *bar.OF_STEPS,
  'random_ratio',
}
TRAINING = {
  name: System(steps, inputs, limits)
  for name, steps, inputs in (
    ('models.var.VAR', var_steps, INPUTS),
    (
      'autoregressive.models.gpt.Transformer(ModelArgs)',
      llamagen_steps,
      INPUTS,
    ),
    ('models.xar.xAR', xar_steps, INPUTS),
    ('models.mar.MAR', mar_steps, INPUTS),
    ('modeling.generator.BAR', bar_steps, BAR_INPUTS),
  )
}
