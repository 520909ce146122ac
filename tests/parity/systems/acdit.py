"""ACDiT: blocks of latents, each by diffusion, beside their clean past."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.acdit import parts
from arvision.feeds.base import carried
from arvision.layouts import masks
from arvision.model import BoundModel, sample
from arvision.process.path import level_of
from arvision.random import Replay
from arvision.structs import Slots, TokenSpec
from arvision.tasks import assemble
from tests.parity.case import Case, System, captured, imported
from tests.parity.systems.xar import Latents

INPUTS = {'clean', 'noised', 't', 'y', 'gen_noise'}


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args = case.args
  # Neither is read where latents come as tokens; outputs are as wide as inputs.
  args.ignore('patch_size', 'in_channels', 'num_frames', 'learn_sigma')
  args.ignore('class_dropout_prob')
  args.only(temporal_len=1)
  side, block = math.isqrt(args['spatial_len']), args['block_size']
  args.only(spatial_len=side**2, ar_len=side**2 // block)
  cell = (math.isqrt(block), math.isqrt(block))
  if not args.get('square_block', True):
    cell = (max(block // side, 1), min(block, side))
  if math.prod(cell) != block:
    raise args.refused('block_size', 'a block is a square or whole rows')
  width = args['hidden_size']
  config = common.new()
  parts.acdit(
    config,
    grid=(side, side),
    channels=args['latent_size'],
    classes=args['num_classes'],
    depth=args['depth'],
    width=width,
    heads=args['num_heads'],
    hidden=int(width * args.get('mlp_ratio', 4.0)),
    cell=cell,
  )
  if shares := args.get('nd_split'):
    config.backbone.rotary.shares = tuple(map(int, shares.split('_')))
  if args.get('no_qk_norm', False):
    del config.backbone.block.attention['logits']
  config.sampler.solver = common.block(type='process.solvers.DDIM')
  return config


def loaded(case: Case) -> tuple[ConfigDict, Any, Any]:
  """Config, model and parameters of a case."""
  config = config_of(case)
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(model, tokens=_codec(model).spec.blank())
  form = build(config.release, 'release')
  return config, model, imported(case, form, shapes)


def _codec(model):
  channels = model.head.channels
  return Latents(TokenSpec(0, channels, channels, model.layout.grids))


def _flat(blocks: np.ndarray) -> np.ndarray:
  """(b, blocks, e, c) -> (b, t, c), in the order of one stream."""
  return blocks.reshape(len(blocks), -1, blocks.shape[-1])


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  config, model, params = loaded(case)
  layout, labels = model.layout, {'label': io['y']}
  batch, tokens = len(io['y']), layout.tokens
  yield (
    'alphas_cumprod',
    model.feed.path.coefficients(level_of(np.arange(1000)))[0] ** 2,
  )
  values = np.concatenate([_flat(io['clean']), _flat(io['noised'])], 1)
  level = np.concatenate([np.zeros(io['t'].shape), level_of(io['t'])], 1)
  slots = Slots(
    jnp.asarray(values), layout.index, layout.slots, jnp.float32(level)
  )
  yield 'position_ids', layout.coords[:tokens].T.astype(int)
  yield 'attention_mask', masks.dense(layout).astype(int)
  head = config.backbone.width // config.backbone.heads
  for name, table in zip(
    ('rope_cos', 'rope_sin'), model.backbone.rotary(layout, slots, head)
  ):
    yield name, table[:tokens]

  none = np.zeros(batch, bool)
  seen = captured(model, params, slots, labels, none, method='hidden')
  stack = seen['modules']['backbone']['stack']['layers']['block']
  yield 'embed', seen['embed']
  yield 'cond', seen['condition'].modulation[:, layout.steps :, None]
  yield 'attn0_out', stack['attention']['__call__'][0][0][0]
  yield 'after_block0', seen['blocks'][0]
  yield 'after_last_block', seen['blocks'][-1]

  def field(model, null):
    return model.head.field(*model.hidden(slots, labels, null))

  apply = jax.jit(lambda p, n: model.apply({'params': p}, n, method=field))
  for name, null in (('out', none), ('out_null_class', ~none)):
    # Tokens lie in raster order here, there in that of the slots.
    yield name, carried(apply(params, null), layout)[:, :tokens]
  yield from _generation(case, config, model, params)


def _generation(case, config, model, params):
  io, run = case.io, case.generation
  run.says('kind', 'DDIM eta 0')
  run.ignore('target_shape', 'dtype')
  layout, codec, batch = model.layout, _codec(model), len(io['y'])
  count = run.first('num_inference_steps', 'argument_2')
  config.sampler.counts.update(first=count, last=count)
  draw = Replay({'start': np.moveaxis(io['gen_noise'], 0, 1)}, size=batch)
  labels = {'label': jnp.asarray(io['y'])}

  def made(scale):
    # The official code guides with scales above 1 alone.
    config.sampler.guidance.scale = float(max(scale, 1.0))
    return build(config.sampler, 'sampler')

  @functools.partial(jax.jit, static_argnums=1)
  def generate(params, sampler):
    return sample(model, params, sampler, labels, draw, codec).values

  def blocks(values):
    return carried(values, layout)[:, : layout.tokens].reshape(
      io['gen_noise'].shape
    )

  sampler = made(run['cfg'])
  levels = sampler.solver.levels(count)
  yield 'gen_timesteps', np.floor(1000 * levels[:-1]).astype(int)
  values = generate(params, sampler)
  eps = jax.jit(
    lambda p, v: _first_looks(model, sampler, labels, draw, codec, p, v)
  )(params, values)
  yield from zip(('gen_first_eps', 'gen_eps_block1_first'), eps)
  yield 'gen', blocks(values)
  yield 'gen_nocfg', blocks(generate(params, made(1.0)))


def _first_looks(model, sampler, labels, draw, codec, params, values):
  """The noise (b or 2 b, e, c) that is predicted first in each block."""
  bound = BoundModel(model, {'params': params}, codec)
  batch, copies = len(values), 2 if sampler.guidance.active else 1
  inputs = {'label': jnp.tile(labels['label'], copies)}
  null = jnp.repeat(jnp.arange(copies) > 0, batch)
  count = sampler.counts(0, model.layout.steps)
  first = sampler.solver.levels(count)[0]
  cache, found = bound.empty_cache(copies * batch), []

  def look(state, step, level, commit):
    slots = bound.feed_slots(state, step)
    slots = slots.replace(
      values=jnp.concatenate([slots.values] * copies),
      level=jnp.full((1, 1), level, jnp.float32),
    )
    cond = bound.condition(inputs, null, slots)
    z, new = bound.read(slots, cond, cache, step.readout, commit)
    return bound.field(z, bound.query(slots, step.readout)), new

  for run in model.layout.runs:
    for i in range(run.count):
      step = run.step(i)
      shape = (len(step.tokens), codec.spec.parts)
      start = draw.fold(run.first + i).normal('start', shape)
      found.append(look(bound.push(values, step, start), step, first, False)[0])
      cache = look(values, step.clean, 0.0, True)[1]
  return found


SYSTEMS = {
  'models.ACDiT': System(transformer, INPUTS),
}
