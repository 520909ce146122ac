"""ARFlow: images of a class at falling noise, and a state that is carried."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.arflow import parts
from arvision.layers.waves import FixedWaves
from arvision.metrics import total
from arvision.model import BoundModel, sample
from arvision.random import Replay
from arvision.samplers.base import Network
from arvision.structs import Tokens, TokenSpec
from arvision.tasks import assemble
from arvision.tokenizers.autoencoder import join, split
from tests.parity.case import (
  Case,
  System,
  captured,
  imported,
  nchw,
  nhwc,
  no_null,
)
from tests.parity.stated import NotCompared
from tests.parity.systems.xar import Latents

INPUTS = {'latents', 'label', 'noise', 'uniform', 'gen_start', 'gen_noise'}


def config_of(case: Case) -> ConfigDict:
  """The config of a case."""
  args = case.args
  scale, last = _stated(case)
  args.ignore('class_dropout_prob')
  args.only(drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0)
  side, channels = args['input_size'], args['in_channels']
  config = common.new()
  config.data = common.block()
  config.tokenizer = common.block(
    type='tokenizers.autoencoder.Patched', grid=(side, side)
  )
  parts.arflow(
    config,
    grid=(side, side),
    channels=channels,
    classes=args['num_classes'],
    depth=args['depth'],
    width=args['hidden_size'],
    heads=args['num_heads'],
    patch=args['patch_size'],
    images=case.io['latents'].shape[1],
    ratio=args['mlp_ratio'],
    guided=min(3, channels),
    spare=args.get('learn_sigma', True),
    steps=case.generation['num_steps'],
    guidance=scale,
  )
  config.sampler.solver.lowest = last
  return config


def _stated(case):
  """Scale of the guidance, and size of the last step."""
  text = case.meta['generation']['function']
  for word in ('Euler', 'diffusion_form sigma', 'norm 1,', 'last_step Mean'):
    if word not in text:
      raise NotCompared(f'generation.function: only "{word}" is compared')
  scale = re.search(r'cfg_scale=([0-9.]+)', text)
  last = re.search(r'last_step Mean ([0-9.]+)', text)
  return float(scale[1]) if scale else 1.0, float(last[1])


def tokens_of(latents: np.ndarray, patch: int) -> jax.Array:
  """(b, s, c, h, w) -> (b, s t, c patch²)."""
  x = jnp.asarray(nhwc(latents))
  batch, count = x.shape[:2]
  rows = join(x.reshape(-1, *x.shape[2:]), patch)
  return rows.reshape(batch, -1, rows.shape[-1])


def latents_of(tokens: Any, side: int, patch: int) -> np.ndarray:
  """(b, s t, c patch²) -> (b, s, c, h, w)."""
  grid = (side // patch, side // patch)
  rows = jnp.reshape(tokens, (-1, grid[0] * grid[1], tokens.shape[-1]))
  images = nchw(split(rows, grid, patch))
  return images.reshape(len(tokens), -1, *images.shape[1:])


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, config = case.io, config_of(case)
  side, patch = case.args['input_size'], case.args['patch_size']
  model = assemble.make_model(config)
  channels = model.head.channels
  codec = Latents(TokenSpec(0, channels, channels, model.layout.grids))
  shapes = assemble.model_shapes(model, tokens=codec.spec.blank())
  params = imported(case, build(config.release, 'release'), shapes)
  batch, count = io['latents'].shape[:2]
  tokens, inputs = tokens_of(io['latents'], patch), {'label': io['label']}
  draw = Replay(
    {'level': 1 - io['uniform'], 'noise': tokens_of(io['noise'], patch)},
    size=batch,
  )
  slots, _ = model.feed.train(Tokens(tokens), model.layout, None, draw)
  yield 'xt', latents_of(slots.values, side, patch)
  yield 't', 1 - slots.level

  seen = captured(model, params, slots, inputs, no_null(batch), method='hidden')
  width = seen['embed'].shape[-1]
  images = lambda x: x.reshape(batch, count, -1, width)
  yield from _first_attention(seen)
  yield 'after_block0', images(seen['blocks'][0])
  yield 'after_last_block', images(seen['blocks'][-1])
  position = FixedWaves(width)
  table = position.init_with_output(jax.random.key(0), model.layout, slots)[0]
  yield 'pos_embed_sincos', table[None, : table.shape[0] // count]

  @jax.jit
  def velocity(params, null):
    def read(model):
      z, query = model.hidden(slots, inputs, null)
      return model.head.field(z, query)

    return model.apply({'params': params}, method=read)

  yield 'out', -latents_of(velocity(params, no_null(batch)), side, patch)
  null = jnp.ones(batch, bool)
  yield 'out_null_class', -latents_of(velocity(params, null), side, patch)

  @jax.jit
  def loss(params, weight):
    terms, _ = model.apply(
      {'params': params},
      Tokens(tokens),
      inputs,
      draw,
      weight=weight,
      train=False,
      method='losses',
    )
    return total(terms).compute()

  yield 'loss', np.array([loss(params, row) for row in np.eye(batch)])
  yield f'state_after_{count}', _states(model, params, slots, inputs, codec)[0]
  yield from _generation(case, config, model, params, codec)


def _first_attention(seen):
  """What the attention of the first block is made of."""
  stack = seen['modules']['backbone']['stack']
  parts = stack['layers']['block']['attention']
  yield 'gt0', parts['decay']['__call__'][0][0]
  yield 'q0_normed', parts['q_norm']['__call__'][0][0]
  yield 'attn0_out', parts['__call__'][0][0][0]


def _states(model, params, slots, inputs, codec):
  """The states of all layers after the images of a sequence, one by one."""

  @jax.jit
  def run(params):
    bound = BoundModel(model, {'params': params}, codec)
    cache, (steps,) = bound.empty_cache(len(slots.values)), model.layout.runs
    for i in range(steps.count):
      step = steps.step(i)
      own = slots.replace(
        values=slots.values[:, step.index],
        index=step.index,
        extent=step.extent,
        level=slots.level[:, i : i + 1],
      )
      cond = bound.condition(inputs, no_null(len(own.values)), own)
      _, cache = bound.read(own, cond, cache, step.readout)
    return [layer.sum for layer in cache[0]]

  return run(params)


def _generation(case, config, model, params, codec):
  io, run, patch = case.io, case.generation, case.args['patch_size']
  run.says('kind', 'replay')
  side, batch = case.args['input_size'], len(io['label'])
  sampler = build(config.sampler, 'sampler')
  model = model.clone(layout=sampler.layout)
  inputs = {'label': jnp.asarray(io['label'])}
  # Of both halves only the conditional one is followed.
  noise = tokens_of(io['gen_noise'][:, :batch], patch)
  noise = noise.reshape(*io['gen_noise'].shape[:1], batch, -1, noise.shape[-1])
  start = tokens_of(io['gen_start'][:, None], patch)
  draw = Replay({'start': start[None], 'step': noise[None]}, size=batch)
  latents = lambda x: latents_of(x, side, patch)[:, 0]

  levels = sampler.solver.levels(sampler.counts(0, 1))
  yield 'gen_times', 1 - levels[:-1]
  states, hidden = jax.jit(
    functools.partial(_steps, model, sampler, levels, inputs, draw, codec)
  )(params)
  yield 'gen_states', np.stack([latents(x) for x in states[:-1]], 1)
  yield 'gen_last_hidden', hidden
  draws = functools.partial(sample, model, sampler=sampler, inputs=inputs)
  values = jax.jit(lambda p: draws(params=p, draw=draw, codec=codec).values)
  yield 'gen', latents(values(params))


def _steps(model, sampler, levels, inputs, draw, codec, params):
  """x after every step of the solver, and the last state of the last layer."""
  bound = BoundModel(model, {'params': params}, codec)
  network = Network(sampler, bound, inputs, draw.batch)
  cache, own = network.empty_cache(), draw.fold(0)
  step = model.layout.runs[0].step(0)
  scale = lambda level: sampler.guidance(0, 1, level)
  x, found = own.normal('start', draw.arrays['start'].shape[2:]), []
  for i, (level, to) in enumerate(zip(levels, levels[1:])):
    slots = bound.feed_slots(x, step)
    slots = slots.replace(level=jnp.full((1, 1), level))
    z, merge, cache = network.look(slots, step.readout, scale, cache)
    field = bound.field(z, bound.query(slots, step.readout))
    velocity = sampler.followed(field, merge(field))
    x = sampler.solver(
      x, velocity, level, to, own.fold(min(i, len(levels) - 3))
    )
    found.append(x)
  return found, cache[0][-1].sum


SYSTEMS = {
  'models.ARFlow (train) / models_infer.ARFlow (sampling)': System(
    transformer, INPUTS
  ),
}
