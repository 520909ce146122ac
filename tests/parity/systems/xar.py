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
from arvision.configs.mar import parts as mar_parts
from arvision.configs.xar import parts
from arvision.feeds.base import carried
from arvision.layers.level import as_time
from arvision.metrics import total
from arvision.model import BoundModel, sample
from arvision.process.guidance import guide
from arvision.random import Replay
from arvision.structs import Tokens, TokenSpec
from arvision.tasks import assemble
from tests.parity.case import Case, System, captured, imported, nchw, nhwc
from tests.parity.stated import Stated

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


def halves_of(args: Stated) -> tuple[dict[str, int], dict[str, int]]:
  """Width, heads and hidden of both halves of xAR or FlowAR."""
  args.only(patch_size=1, qkv_bias=True, buffer_size=0)
  # The number of classes is that of the rows of their table.
  args.ignore('label_drop_prob', 'class_num', 'num_classes', 'use_checkpoint')
  ratio, stated = args['mlp_ratio'], args.get('swiglu_hidden')
  widths = [args[f'{half}_embed_dim'] for half in ('encoder', 'decoder')]
  if stated is None or widths[0] != widths[1]:
    hidden = [int(width * ratio * 2 / 3) for width in widths]
  else:
    hidden = [stated, stated]
  heads = [args[f'{half}_num_heads'] for half in ('encoder', 'decoder')]
  first, second = (
    dict(zip(('width', 'heads', 'hidden'), sizes))
    for sizes in zip(widths, heads, hidden)
  )
  return first, second


def every(case: Case, name: str, whole: Any) -> Any:
  """The tokens of (b, n, d) that the recording (b, m, d) of some has."""
  if name not in case.io:
    return whole
  step = -(-whole.shape[1] // case.io[name].shape[1])
  return whole[:, ::step]


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args = case.args
  args.ignore('diffusion_batch_mul')  # read by no official function
  first, second = halves_of(args)
  side = args['img_size'] // args['vae_stride']
  config = common.new()
  parts.xar(
    config,
    grid=(side, side),
    channels=args['vae_embed_dim'],
    classes=case.meta['weights']['class_emb.weight']['shape'][0] - 1,
    depth=args['encoder_depth'],
    side=side // round(args['clusters'] ** 0.5),
    dropout=0.0,
    **first,
  )
  config.backbone.body.depth = args['decoder_depth']
  if second != first:
    mar_parts.second_half(config, **second)
    config.release.second_heads = second['heads']
  # Levels are recorded as they come out of their law.
  config.feed.levels = 'uniform'
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
  yield 'clusters', carried(tokens.values, layout).reshape(*cells, -1)

  draw = Replay(draws(io['loss_time'], io['loss_noise']), size=batch)
  slots, _ = model.feed.train(tokens, layout, None, draw)
  yield 'loss_model_input', slots.values
  none = np.zeros(batch, bool)
  seen = captured(model, params, slots, inputs, none, method='hidden')
  parts_of = seen['modules']
  level = parts_of['condition']['level']['__call__'][0]
  yield (
    'loss_time_embedding',
    level.swapaxes(0, 1).reshape(-1, 1, 1, level.shape[-1]),
  )
  for name, whole in {
    'loss_after_block0': seen['blocks'][0],
    'loss_encoder_out': parts_of['backbone']['norm_first']['__call__'][0],
    'loss_dec_after_block0': seen['stack_second'][0],
  }.items():
    yield name, every(case, name, whole)

  def velocity(model, slots):
    return model.head.field(*model.hidden(slots, inputs, none))

  got = jax.jit(lambda p: model.apply({'params': p}, slots, method=velocity))(
    params
  )
  yield 'loss_velocity', carried(got, layout)
  terms, _ = jax.jit(
    lambda p: model.apply(
      {'params': p}, tokens, inputs, draw, train=False, method='losses'
    )
  )(params)
  yield 'loss', total(terms).compute()

  yield from _generation(case, config, model, params)


def _generation(case, config, model, params):
  io, run = case.io, case.generation
  run.says('kind', 'replay')
  batch, layout, codec = len(io['label']), model.layout, _codec(model)
  inputs = {'label': jnp.asarray(io['label'])}
  count = run['num_steps']
  config.sampler.counts.update(first=count, last=count)
  # The official code guides with scales above 1 alone.
  config.sampler.guidance.end = max(run['cfg'], 1.0)
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
    return bound.field(z, bound.query(slots, step.readout)), cache

  cache = bound.empty_cache(2 * batch)
  _, cache = look(values, run.step(0), 0.0, cache, True)
  shape = (len(step.tokens), codec.spec.parts)
  x, found = own.normal('start', shape), []
  for i in range(2):
    state = bound.push(values, step, x)
    field, _ = look(state, step, levels[i], cache, False)
    found.append(field)
    scale = sampler.guidance(1, layout.steps, levels[i])
    velocity = guide(*jnp.split(field, 2), scale)
    x = sampler.solver(x, velocity, levels[i], levels[i + 1], own.fold(i))
  return jnp.stack(found)


SYSTEMS = {
  'models.xar.xAR': System(transformer, INPUTS),
}
