"""VQ-Diffusion: its networks, losses, samplers and steps of training."""

import functools
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from arvision.build import build
from arvision.configs import common
from arvision.configs.vq_diffusion import parts
from arvision.model import BoundModel
from arvision.process.transitions import MaskAndReplace
from arvision.random import Replay
from arvision.samplers.base import Network
from arvision.structs import Slots, Tokens
from arvision.tasks import assemble
from arvision.tasks.base import TrainState
from arvision.tasks.importance import ImportanceSampled
from tests.parity.case import Case, System, captured, imported
from tests.parity.stated import NotCompared, Stated
from tests.parity.systems import training

INPUTS = {
  *('tokens', 'masked_tokens', 't', 'label', 'condition', 'importance_history'),
  *('train_t', 'train_uniform'),
  *(f'{x}_{i}' for x in ('uniform', 'select_exponential') for i in range(9)),
}
STEP_INPUTS = {
  *('tokens', 'label', 'condition', 't', 'uniform', 'history_start'),
  *('lr', 'weight_decay', 'init_delta_abs_sum'),
}


# Compiling takes a third less so.
jit = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)


def swapped(x: Any) -> np.ndarray:
  """(..., classes, tokens) <-> (..., tokens, classes)."""
  return np.swapaxes(np.asarray(x), -1, -2)


def gumbel(uniform: np.ndarray) -> np.ndarray:
  """(..., tokens, classes) noise of the official uniform numbers."""
  tiny = np.float32(1e-30)
  return swapped(-np.log(-np.log(uniform + tiny) + tiny))


def transitions(case: Case) -> Iterator[tuple[str, Any]]:
  """The matrices alone."""
  io, stated = case.io, case.config
  stated.only(alpha_init_type='alpha1')
  process = MaskAndReplace(stated['K'], stated['timesteps'])
  for names, table in (
    (('at', 'bt', 'ct'), [x[1:] for x in process.single]),
    (('att', 'btt', 'ctt'), [np.roll(x, -1) for x in process.whole]),
  ):
    yield from zip(names, table)
  time, x = io['t'] + 1, io['x_t']
  log_x = process.one_hot(io['x0'])
  forward = swapped(process.forward(log_x, time))
  yield 'log_q_xt_x0', forward
  yield 'x_t', np.argmax(forward + io['gumbel'], 1)
  once = process.forward_once(process.one_hot(x), time)
  yield 'log_q_one_step', swapped(once)
  true = process.posterior(log_x[..., :-1], x, time)
  yield 'log_posterior_true_x0', swapped(true)
  log_x0 = swapped(io['log_predicted_x0'])[..., :-1]
  predicted = process.posterior(log_x0, x, time)
  yield 'log_posterior_predicted_x0', swapped(predicted)


def loaded(case: Case) -> tuple[Any, Any, Any]:
  """Our config of a case, the model, and its parameters."""
  args, official = case.args, case.meta['constructor']['cls']
  args.only(alpha_init_type='alpha1')
  args.says('norm', 'LayerNorm eps 1e-5')
  args.ignore('condition_seq_len', 'content_seq_len', 'learnable_cf')
  side, steps = args['side'], args['steps']
  texts, classes, caption = 'Text2Image' in official, 0, None
  if texts:
    length = case.io['condition'].shape[1] if 'condition' in case.io else 77
    caption = {'length': length, 'channels': args['condition_dim']}
  elif 'Condition2Image' in official and 'UnCondition' not in official:
    classes = args['class_number']
  timing = args['timestep_type']
  if timing not in ('adalayernorm', 'adalayernorm_abs'):
    raise args.refused('timestep_type', 'the official code has no such norm')
  adaptive = args['adaptive_auxiliary_loss']
  config = common.new()
  config.task = common.block(type='tasks.autoregressive.Autoregressive')
  sides = args.get('spatial_size')
  parts.vq_diffusion(
    config,
    grid=(side, side),
    vocab_size=args['K'],
    depth=args['n_layer'],
    width=args['n_embd'],
    heads=args['n_head'],
    classes=classes,
    caption=caption,
    steps=steps,
    hidden=int(args['mlp_hidden_times'] * args['n_embd']),
    convolutions=args['mlp_type'] == 'conv_mlp',
    sides=sides and tuple(sides),
    sinusoid=timing == 'adalayernorm_abs',
    exact=args['block_activate'] == 'GELU',
    auxiliary=args['auxiliary_loss_weight'],
  )
  config.backbone.block.attention.update(
    dropout=args.get('resid_pdrop', 0.0),
    weights_dropout=args.get('attn_pdrop', 0.0),
  )
  config.backbone.block.mlp.dropout = args.get('resid_pdrop', 0.0)
  if classes:
    kind = args['class_type']
    norm = config.backbone.block.mlp_norm
    norm.embedding = 'sinusoid' if 'abs' in kind else 'table'
    # The null class is 1000, whichever classes there are.
    config.condition.classes = min(classes, 1000)
    if 'adalayernorm' not in kind:
      norm.norm = common.block(type='layers.embedded_norm.InstanceNorm')
  weights = args['mask_weight']
  config.head.update(
    early=float(adaptive),
    masked_weight=float(weights[0]),
    unmasked_weight=float(weights[1]),
  )
  if texts and 'empty_text_embed' not in case.meta['weights']:
    config.condition.type = 'layers.level_condition.LevelAndPlainCaption'
  config.release.positions = args.get('pos_emb_type', 'embedding')
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(model)
  form = build(config.release, 'release')
  return config, model, imported(case, form, shapes)


def inputs_of(case: Case, io: dict[str, np.ndarray]) -> dict[str, Any]:
  """The inputs of our condition."""
  if 'condition' in io:
    text = jnp.asarray(io['condition'])
    return {'text': text, 'text_valid': jnp.ones(text.shape[:2], bool)}
  return {'label': jnp.asarray(io.get('label', np.zeros(len(io['tokens']))))}


def nulls_of(case: Case) -> np.ndarray:
  """(b,) bool, the captions that the recorded training step drops."""
  words = ' '.join(case.meta.get('conventions', []))
  null = np.zeros(len(case.io['tokens']), bool)
  if 'here row 1' in words:
    null[1] = True
  return null


def network(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  config, model, params = loaded(case)
  process, inputs = model.feed.process, inputs_of(case, io)
  batch = len(io['tokens'])

  def slots_of(x, t):
    masked = x == process.mask
    level = process.level(jnp.asarray(t) + 1)[:, None]
    values, index = jnp.where(masked, 0, x), model.layout.index
    return Slots(values, index, len(index), level=level, masked=masked)

  @jit
  def logits_of(params, x, t, null):
    args = slots_of(x, t), inputs, null
    z, query = model.apply({'params': params}, *args, method='hidden')
    return model.apply({'params': params}, z, query, method='field')

  args = params, io['masked_tokens'], io['t']
  slots = slots_of(*args[1:])
  null = jnp.zeros((batch,), bool)
  seen = captured(model, params, slots, inputs, null, method='hidden')
  yield 'embedding', seen['embed']
  yield 'after_block0', seen['blocks'][0]
  yield 'logits', swapped(logits_of(*args, null))
  yield 'logits_null', swapped(logits_of(*args, ~null))
  yield from _losses(case, model, params)
  # Sampling from given tokens fails in the official code.
  if int(process.steps * case.generation.get('filter_ratio', 0.0)):
    raise case.generation.refused('filter_ratio', 'all ids are sampled')
  for i, run in enumerate(case.generation['runs']):
    run = Stated(f'generation.runs.{i}', run)
    yield from _generation(case, i, run, config, model, params)
    if run.unread:
      raise NotCompared(f'{", ".join(run.unread)}: not read by the driver')


def task_of(model: Any) -> ImportanceSampled:
  """Our task without an optimizer."""
  return ImportanceSampled(
    model=model,
    sampler=None,
    tokenizer=training.NoTokenizer(),
    tx=optax.identity(),
    image_shape=(1, 1, 1),
    classes=0,
  )


def _losses(case, model, params):
  io = case.io
  steps, batch = model.feed.process.steps, len(io['tokens'])
  model = model.clone(condition=model.condition.clone(drop=0.5))
  task = task_of(model)
  draw = training.Recorded(
    {
      'null': jnp.where(nulls_of(case), 0.0, 1.0),
      'time': io['train_t'],
      'noise': gumbel(io['train_uniform']),
    },
    size=batch,
  )
  rows = {'stored': io['tokens'], 'inputs': inputs_of(case, io)}

  @jit
  def step(params, extra):
    state = TrainState(jnp.zeros((), jnp.int32), params, None, {}, extra)
    frozen = {'tokenizer': {}}
    found = task.objective(params, state, frozen, rows, draw)
    state, _ = task.after(state, found.aux)
    term = found.terms['tokens']
    each = jnp.sum(term.loss * term.weight, -1)
    return found.measured['loss'].compute(), each, state.extra['squares']

  @jit
  def found(params):
    tokens = Tokens(jnp.asarray(io['tokens']))
    slots, _ = model.feed.train(tokens, model.layout, None, draw)
    args = slots, rows['inputs'], jnp.asarray(nulls_of(case))
    z, query = model.apply({'params': params}, *args, method='hidden')
    logits = model.apply({'params': params}, z, query, method='field')
    process = model.feed.process
    x = jnp.where(slots.masked, process.mask, slots.values)
    log_x0 = jnp.maximum(jax.nn.log_softmax(logits), -70)
    return jnp.exp(process.posterior(log_x0, x, io['train_t'] + 1))

  histories = {
    'train': (jnp.zeros(steps), jnp.zeros(steps)),
    'train_importance': (io['importance_history'], jnp.full(steps, 11.0)),
  }
  for name, (squares, times) in histories.items():
    extra = {'squares': jnp.asarray(squares), 'times': times}
    loss, each, history = step(params, extra)
    yield f'{name}_loss', loss
    yield f'{name}_vb_loss', each
    yield f'{name}_Lt_history', history
  yield 'train_p_model', swapped(found(params))


def _generation(case, number, run, config, model, params):
  """One run of the official sampler."""
  io = case.io
  sampler = build(_sampler(case, run, config), 'sampler')
  process, tokens = model.feed.process, model.layout.tokens
  uniform = io[f'uniform_{number}']
  calls, batch = sampler.calls(process, tokens), uniform.shape[1]
  if len(calls) != len(uniform):
    raise run.refused(
      'sample_type', f'{len(calls)} calls, {len(uniform)} there'
    )
  noise = io[f'select_exponential_{number}']
  noise = -np.log(noise[: len(noise) // batch * batch])
  noise = noise.reshape(-1, batch, tokens)
  places = np.zeros((len(calls), batch, tokens), np.float32)
  places[: min(len(noise), len(calls) - 1)] = noise[: len(calls) - 1]
  arrays = {'sampler/ids': gumbel(uniform), 'sampler/places': places}
  draw = Replay(arrays, size=batch)
  inputs = inputs_of(case, io)
  if 'labels' in case.generation:
    inputs = {'label': jnp.asarray(case.generation['labels'], jnp.int32)}

  @jit
  def run_all(params):
    bound = BoundModel(model, {'params': params})
    found, [given] = sampler.loop(bound, inputs, draw, batch, None)
    net = Network(sampler, bound, inputs, batch)
    step, state = bound.layout.runs[0].step(0), bound.start(batch)

    def predicted(now):
      i, x, call = now
      log_x0 = sampler.predicted(net, state, step, x, call[0], i, len(calls))
      none = jnp.full((*x.shape, 1), -70.0)
      return jnp.exp(jnp.concatenate([log_x0, none], -1))

    every = jnp.arange(len(calls)), given, jnp.asarray(calls)
    return found.values, jax.lax.map(predicted, every)

  values, every = run_all(params)
  yield f'gen_p_x0_{number}', swapped(every)
  yield f'gen_tokens_{number}', values


def _sampler(case, run, config):
  """Our block of the options of a run."""
  words = run['sample_type'].split(',')
  block = config.copy_and_resolve_references().sampler
  rule, weight = run['prior_rule'], run['prior_weight']
  scale = float(run['guidance'])
  time = next((float(w[4:]) for w in words if w.startswith('time')), 1.0)
  if any(w.startswith('q') for w in words[1:]):
    raise run.refused('sample_type', 'the official code fails')
  top_p, top_k = 1.0, 0
  if not words[0].startswith('top'):
    scale = 1.0  # as published: without truncation there is no guidance
  elif words[0].endswith('r'):
    top_p = float(words[0][3:-1])
  else:
    top_k = int(words[0][3:-1])
  block.logits_filter.update(top_p=top_p, top_k=top_k)
  block.guidance.scale = 1.0 if abs(scale - 1) < 1e-3 else scale
  counts = case.generation['n_sample']
  if time >= 2:
    block.stride = int(time)
    return block
  most = int(run.get('prior_ps', 1024))
  if time < 1:
    most = int(1024 // config.feed.process.steps * time)
    rule = rule or 1
  if not rule:
    return block
  block.update(
    type='samplers.discrete.HighQuality',
    score='equal' if rule == 1 else 'purity',
    sharpen=float(weight),
    counts=tuple(counts[:0:-1]),
    most=most,
  )
  return block


class Measured(training.Replayed, ImportanceSampled):
  """The task, with the running averages of a step as a metric."""

  def after(self, state, aux):
    state, metrics = super().after(state, aux)
    return state, {**metrics, 'history_after_step': state.extra['squares']}


def steps(case: Case) -> Iterator[tuple[str, Any]]:
  """Steps with recorded times and noise."""
  io = case.io
  case.training.ignore('B', 'steps')
  config, model, params = loaded(case)
  noise = np.stack([gumbel(u) for u in io['uniform']])

  def moment(case, i):
    draws = {'time': io['t'][i], 'noise': noise[i]}
    own = {k: io[k][i] for k in ('label', 'condition') if k in io}
    inputs = inputs_of(case, {**own, 'tokens': io['tokens'][i]})
    return training.Moment(io['tokens'][i], draws=draws, inputs=inputs)

  def noised(i):
    draw = Replay(moment(case, i).draws, size=len(io['t'][i]))
    tokens = Tokens(jnp.asarray(io['tokens'][i]))
    slots, _ = model.feed.train(tokens, model.layout, None, draw)
    return np.where(slots.masked, model.feed.process.mask, slots.values)

  yield 'x_t', np.stack([noised(i) for i in range(len(io['lr']))])
  extra = {
    'squares': jnp.asarray(io['history_start']),
    'times': jnp.full(model.feed.process.steps, 11.0),
  }
  yield from training.train(
    case,
    types.SimpleNamespace(loaded=lambda case: (config, model, params)),
    moment=moment,
    min_ndim=0,
    kind=Measured,
    extra=extra,
  )


def _limits(case: Case, name: str) -> Any:
  """Of arrays without weights; logs of next to nothing are compared as such."""
  wanted, limit = case.io[name], case.meta['suggested']['atol']
  if np.issubdtype(wanted.dtype, np.integer):
    return 0.0
  return np.where(wanted < -40, 30.0, limit)


_WHICH = ('Condition2Image', 'Text2Image', 'UnCondition2Image')
_NAMES = [
  *(f'DiffusionTransformer with {name}Transformer' for name in _WHICH),
  'DiffusionTransformer with Text2ImageTransformer (learnable_cf)',
]
SYSTEMS = {name: System(network, INPUTS) for name in _NAMES}
TRAINING = {
  name: System(steps, STEP_INPUTS, training.limits) for name in _NAMES
}
FUNCTIONS = {
  'image_synthesis/modeling/transformers/diffusion_transformer.py': System(
    transitions, {'x0', 't', 'gumbel', 'log_predicted_x0'}, _limits
  ),
}
