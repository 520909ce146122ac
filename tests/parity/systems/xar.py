"""xAR: cells that are refined one after another."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.xar import parts
from arvision.feeds.base import carried
from arvision.layers.level import as_time
from arvision.metrics import total
from arvision.model import BoundModel, sample
from arvision.process.guidance import guide
from arvision.structs import Replay, Tokens, TokenSpec, blank_tokens
from arvision.tasks import assemble
from tests.parity.case import Case, captured, imported, nchw, nhwc

INPUTS = {
  'latent',
  'label',
  'loss_time',
  'loss_noise',
  'gen_init_noise',
  'gen_step_noise',
}


@dataclasses.dataclass(frozen=True)
class Latents:
  """A codec that knows the form of its tokens alone."""

  spec: TokenSpec


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args = case.args
  for name in ('embed_dim', 'num_heads'):
    if args[f'encoder_{name}'] != args[f'decoder_{name}']:
      raise NotImplementedError(f'halves that differ in {name}')
  if not args['qkv_bias'] or args['patch_size'] != 1:
    raise NotImplementedError('no bias of q, k and v, or patches of latents')
  side = args['img_size'] // args['vae_stride']
  config = common.new()
  parts.xar(
    config,
    grid=(side, side),
    channels=args['vae_embed_dim'],
    classes=case.meta['weights']['class_emb.weight']['shape'][0] - 1,
    depth=args['encoder_depth'],
    width=args['encoder_embed_dim'],
    heads=args['encoder_num_heads'],
    hidden=args['swiglu_hidden'],
    side=side // round(args['clusters'] ** 0.5),
    dropout=0.0,
  )
  config.backbone.second_depth = args['decoder_depth']
  # Levels are recorded as they come out of their law.
  config.feed.levels = 'uniform'
  return config


def loaded(case: Case) -> tuple[ConfigDict, Any, Any]:
  """Config, model and parameters of a case."""
  config = config_of(case)
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(model, tokens=blank_tokens(_codec(model).spec))
  form = build(config.release, 'release')
  return config, model, imported(case, form, shapes)


def _codec(model):
  channels = model.head.channels
  return Latents(TokenSpec('latents', channels, model.layout.grids, channels))


def rows(latent: np.ndarray) -> np.ndarray:
  """(b, c, h, w) -> (b, h * w, c)."""
  x = nhwc(latent)
  return x.reshape(len(x), -1, x.shape[-1])


def draws(times: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
  """Recorded times (cells * b,) and noise (b, cells, e, c), as feeds draw."""
  batch = len(noise)
  return {
    'level': times.reshape(-1, batch).T,
    'noise': noise.reshape(batch, -1, noise.shape[-1]),
  }


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  config, model, params = loaded(case)
  layout, batch = model.layout, len(io['label'])
  cells = (batch, layout.steps, layout.slots // layout.steps)
  inputs = {'label': io['label']}
  tokens = Tokens(jnp.asarray(rows(io['latent'])))
  yield 'clusters', carried(tokens.values, layout.token).reshape(*cells, -1)

  draw = Replay(draws(io['loss_time'], io['loss_noise']), size=batch)
  slots = model.feed.train(tokens, layout, None, draw)
  yield 'loss_model_input', slots.values
  none = np.zeros(batch, bool)
  seen = captured(model, params, slots, inputs, none, method='hidden')
  parts_of = seen['modules']
  level = parts_of['condition']['level']['__call__'][0]
  yield (
    'loss_time_embedding',
    level.swapaxes(0, 1).reshape(-1, 1, 1, level.shape[-1]),
  )
  yield 'loss_after_block0', seen['blocks'][0][:, ::4]
  first = parts_of['backbone']['norm_first']['__call__'][0]
  yield 'loss_encoder_out', first[:, ::4]
  yield 'loss_dec_after_block0', seen['stack_second'][0][:, ::4]

  def velocity(model, slots):
    return model.head.field(*model.hidden(slots, inputs, none))

  got = jax.jit(lambda p: model.apply({'params': p}, slots, method=velocity))(
    params
  )
  yield 'loss_velocity', carried(got, layout.token)
  terms, _ = jax.jit(
    lambda p: model.apply(
      {'params': p}, tokens, inputs, draw, train=False, method='losses'
    )
  )(params)
  yield 'loss', total(terms).compute()

  yield from _generation(case, config, model, params)


def _generation(case, config, model, params):
  io, generation = case.io, case.meta['generation']
  batch, layout, codec = len(io['label']), model.layout, _codec(model)
  inputs = {'label': jnp.asarray(io['label'])}
  count = generation['num_steps']
  config.sampler.counts.update(first=count, last=count)
  config.sampler.guidance.end = generation['cfg']
  sde = build(config.sampler, 'sampler')
  config.sampler.solver = common.block(type='process.flow.Euler')
  ode = build(config.sampler, 'sampler')
  draw = Replay(
    {
      'start': np.moveaxis(io['gen_init_noise'], 0, 1),
      'step': np.moveaxis(io['gen_step_noise'], 0, 2),
    },
    size=batch,
  )

  @functools.partial(jax.jit, static_argnums=1)
  def generate(params, sampler):
    return sample(model, params, sampler, inputs, draw, codec).values

  def latent(values):
    return nchw(np.reshape(values, (batch, *layout.grids[0], -1)))

  values = generate(params, sde)
  seen = jax.jit(
    functools.partial(_second_cell, model, sde, inputs, draw, codec)
  )(params, values)
  for name, sampler in (('gen', sde), ('gen_ode', ode)):
    count = sampler.counts(0, layout.steps)
    times = as_time(sampler.solver.levels(count)[:-1]).astype(int)
    yield f'{name}_timesteps', np.tile(times, (layout.steps, 1))
  yield 'gen_velocity_first_two_calls_cluster1', seen
  yield 'gen', latent(values)
  yield 'gen_ode', latent(generate(params, ode))


def _second_cell(model, sampler, inputs, draw, codec, params, values):
  """(2, 2 b, e, c) velocities of the first two looks at the second cell."""
  bound = BoundModel(model, {'params': params}, codec)
  batch, layout = len(values), model.layout
  (run,) = layout.runs
  both = {'label': jnp.tile(inputs['label'], 2)}
  null = jnp.repeat(jnp.arange(2) > 0, batch)
  own, step = draw.fold(1), run.step(1)
  levels = sampler.solver.levels(sampler.counts(1, layout.steps))

  def look(state, step, level, cache, commit):
    slots = bound.feed_slots(state, step)
    slots = slots.replace(
      values=jnp.concatenate([slots.values] * 2),
      level=jnp.full((1, 1), level, jnp.float32),
    )
    cond = bound.condition(both, null, slots)
    z, cache = bound.read(slots, cond, cache, step.readout, commit)
    return bound.field(z, slots), cache

  cache = bound.empty_cache(2 * batch)
  _, cache = look(values, run.step(0), 0.0, cache, True)
  shape = (len(step.tokens), codec.spec.size)
  x, found = own.normal('start', shape), []
  for i in range(2):
    state = bound.push(values, step, x)
    field, _ = look(state, step, levels[i], cache, False)
    found.append(field)
    scale = sampler.guidance(1, layout.steps, levels[i])
    velocity = guide(*jnp.split(field, 2), scale)
    x = sampler.solver(x, velocity, levels[i], levels[i + 1], own.fold(i))
  return jnp.stack(found)
