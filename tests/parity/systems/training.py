"""Five steps of the published training recipes, with our task and optimizer."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from arvision.build import build
from arvision.configs.bar import parts as bar_parts
from arvision.configs.infinity import parts as infinity_parts
from arvision.configs.mar import parts as mar_parts
from arvision.configs.var import parts
from arvision.importers import llamagen as llamagen_table
from arvision.importers import table
from arvision.importers import var as var_table
from arvision.random import Replay
from arvision.tasks.autoregressive import Autoregressive
from arvision.tasks.base import Averages, TrainState, start_ema
from arvision.training.optim import DecayRule, Optimizer, Trained
from arvision.training.schedule import Clock
from tests.parity.case import Case, Part, System
from tests.parity.systems import bar, infinity, llamagen, mar, var, xar

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
  *infinity.TRAINING_INPUTS,
}


_METRICS = {'gradient_norm': 'grad_norm'}


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
    rows, own = variables.get('rows'), variables.get('own')
    return var.Teacher(rows, self.scales, own)


@flax.struct.dataclass
class Recorded(Replay):
  """Recorded draws of a step; nothing is dropped."""

  def key(self, name: str) -> jax.Array:
    return jax.random.key(0)


class Replayed(Autoregressive):
  """The task, with the draws that lie beside the tokenizer's variables."""

  def objective(self, params, state, frozen, rows, draw):
    size = len(rows['row'])
    recorded = {'null': jnp.ones(size), **frozen['draws']}
    draw = Recorded(recorded, size=size, progress=draw.progress)
    return super().objective(params, state, frozen, rows, draw)


@dataclasses.dataclass(frozen=True)
class Moment:
  """What was recorded of a step, besides its rate.

  Attributes:
    tokens: codes (b, t) or latents (b, t, c).
    teacher: (b, n, c) input that a codec hands out, or None.
    draws: name -> (b, ...) what the task draws.
    inputs: of the condition; None: the labels.
    own: (b, n, c) what such a codec makes of scales alone, or None.
  """

  tokens: np.ndarray
  teacher: np.ndarray | None = None
  draws: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  inputs: dict[str, np.ndarray] | None = None
  own: np.ndarray | None = None


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


def captioned(case: Case, i: int) -> Moment:
  """The i-th step of Infinity."""
  stored, inputs, draws = infinity.moment(case, i)
  return Moment(stored, draws=draws, inputs=inputs)


def train(
  case: Case,
  module: Any,
  form: table.Table | None = None,
  moment: Callable[[Case, int], Moment] = codes,
  exempt: tuple[str, ...] = (),
  min_ndim: int = 2,
  drop: float = 0.0,
  kind: type[Replayed] = Replayed,
  tokenizer: Any = None,
  ema: Averages | None = None,
  trained: Trained | None = None,
  extra: dict[str, jax.Array] | None = None,
) -> Iterator[tuple[str, Any]]:
  """Takes the steps, and compares the parameters in the official layout.

  Args:
    case: with batches, rates and fingerprints.
    module: one beside this file; `loaded(case)` gives config, model, parameters.
    form: of the family; None: as the config says.
    moment: case, number of a step -> what was recorded of it.
    exempt, min_ndim: see `DecayRule`.
    drop: share of the labels that are dropped.
    kind: of the task; its metrics are compared by name.
    tokenizer: a module without parameters; None: one that binds the recorded
      input of a step.
    ema: the average that is recorded as 'ema'; None: as the case says.
    trained: selects the trained parameters; None: all.
    extra: other state before the first step.
  """
  io = case.io
  config, model, params = module.loaded(case)
  form = form or build(config.release, 'release')
  tx = optimizer(case, exempt, min_ndim)
  model = model.clone(condition=model.condition.clone(drop=drop))
  averages = {'ema': ema.decays[0]} if ema else _averages(case)
  task = kind(
    model=model,
    sampler=None,
    tokenizer=tokenizer or NoTokenizer(tuple(case.args.get('patch_nums', ()))),
    tx=tx,
    image_shape=(1, 1, 1),
    classes=config.condition.get('classes', 0),
    ema=ema or Averages(tuple(averages.values())),
    steps=len(io['lr']),
    trained=trained,
  )
  params = jax.tree.map(jnp.asarray, params)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=(trained.wrap(tx) if trained else tx).init(params),
    ema=start_ema(params, task.ema.decays),
    extra=extra or {},
  )
  step = jax.jit(task.step)
  found = []
  for i in range(len(io['lr'])):
    now = moment(case, i)
    rows = {} if tokenizer else {'rows': now.teacher, 'own': now.own}
    frozen = {'tokenizer': rows, 'draws': now.draws}
    inputs = now.inputs or {'label': io['label'][i]}
    batch = {'tokens': now.tokens, **inputs}
    state, metrics = step(state, frozen, batch)
    found.append(metrics)
  for name in found[0]:
    yield _METRICS.get(name, name), np.array([x[name] for x in found])

  averages = {k: state.ema[str(d)] for k, d in averages.items()}
  yield from fingerprints(case, form, params, state.params, averages)


def optimizer(
  case: Case, exempt: tuple[str, ...] = (), min_ndim: int = 2
) -> optax.GradientTransformation:
  """The optimizer of a case, with its recorded rates.

  Args:
    case: with rates and decays of every step.
    exempt, min_ndim: see `DecayRule`.
  """
  io, official = case.io, case.optimizer
  official.says('kind', 'AdamW')
  # Rates are arrays; the rest says in words what the fingerprints show.
  official.ignore('weight_decay', 'schedule', 'decay_rule', 'ema_rule')
  official.ignore('decay', 'no_decay', 'raw')
  decays = io['weight_decay']
  recipe = Recipe(
    learning_rate=1.0,
    b1=official['betas'][0],
    b2=official['betas'][1],
    eps=official['eps'],
    weight_decay=float(decays[0]),
    weight_decay_end=float(decays[-1]),
    decays=tuple(map(float, decays)),
    decay=DecayRule(min_ndim, exempt),
    clip=official['clip'] or 0.0,
    schedule=Rates(io['lr']),
  )
  return recipe.make(Clock(len(io['lr']), 1, 1))


def fingerprints(
  case: Case,
  form: table.Table,
  before: Any,
  after: Any,
  averages: dict[str, Any],
) -> Iterator[tuple[str, Any]]:
  """What a case records of the parameters, in their official layout.

  Args:
    case: with fingerprints.
    form: of the family.
    before, after: parameters before the first and after the last step.
    averages: name of a recorded running average -> ours.
  """
  keys = case.meta['fingerprint_keys']

  def official_of(params):
    # Only buffers depend on the grids.
    weights = table.to_weights(form, jax.device_get(params), ((1, 1),))
    return [_told(case, key, np.float64(weights[key])) for key in keys]

  start, end = official_of(before), official_of(after)
  found = {name: official_of(params) for name, params in averages.items()}
  for name, arrays in {'init': start, 'final': end, **found}.items():
    yield f'{name}_sum', np.array([a.sum() for a in arrays])
    yield f'{name}_sumsq', np.array([(a**2).sum() for a in arrays])
    yield f'{name}_first4', np.array([_first4(a) for a in arrays])
  change = [b - a for a, b in zip(start, end)]
  for name, arrays in {'final': end, **found}.items():
    moved = [np.abs(b - a).sum() for a, b in zip(start, arrays)]
    yield f'{name}_delta_abs_sum', np.array(moved)
  yield 'final_delta_sumsq', np.array([(d**2).sum() for d in change])
  for name, arrays in found.items():
    if f'{name}_projection' not in case.io:
      continue
    share = [
      np.sum((a - s) * d) / np.sum(d * d)
      for a, s, d in zip(arrays, start, change)
    ]
    # What only decays moves less than one digit: its noise is all there is.
    told = np.flatnonzero(case.io[f'noise_{name}_projection'] <= 0.1)
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
  if name == 'grad_norm' or name.endswith('loss'):  # of terms too
    kind = 'loss' if name.endswith('loss') else name
    return suggested[f'{kind}_rel'] * np.abs(wanted)
  if not np.issubdtype(wanted.dtype, np.floating):
    return np.zeros(wanted.shape)
  when = name.split('_')[0]
  if not name.endswith(('sum', 'sumsq', 'first4', 'projection')):
    # What enters a step.
    return 1e-6 * np.abs(wanted).max()
  sizes = [
    case.meta['weights'][k]['shape'] for k in case.meta['fingerprint_keys']
  ]
  count = np.array([np.prod(s) for s in sizes])
  # An average of which no squares are recorded is as large as its parameter.
  rms = np.sqrt(io.get(f'{when}_sumsq', io['final_sumsq']) / count)
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
    # Of biases of keys the gradient is rounding noise.
    keys, noise = case.meta['fingerprint_keys'], case.meta['tolerance']
    unstable = np.isin(keys, case.meta.get('fingerprint_unstable', []))
    most = 2 * noise['final_sumsq']['max'] if unstable.any() else 0.0
    share = np.maximum(suggested['sumsq_rel'], most * unstable)
    return share * np.abs(wanted)
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


def infinity_steps(case: Case) -> Iterator[tuple[str, Any]]:
  yield from infinity.corrected(case)
  yield from train(
    case,
    infinity,
    moment=captioned,
    exempt=infinity_parts.NO_DECAY,
    tokenizer=infinity.training_codec(case),
    drop=case.meta['training']['cond_drop_rate'],
  )


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
    ('infinity.models.infinity.Infinity', infinity_steps, INPUTS),
  )
}
