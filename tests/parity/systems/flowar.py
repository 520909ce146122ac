"""FlowAR: the transformer over scales, its flow head, and their samples."""

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
from arvision.configs.flowar import parts
from arvision.configs.mar import parts as mar_parts
from arvision.layers.level import as_time
from arvision.metrics import total
from arvision.model import sample
from arvision.process.flow import mix
from arvision.quantizers.kl import KL
from arvision.random import Replay
from arvision.structs import Query, Tokens
from arvision.tasks import assemble
from arvision.tokenizers.pyramid import Pyramid
from tests.parity.case import Case, System, imported, intermediates, nchw, nhwc
from tests.parity.systems import xar
from tests.parity.systems.flexvar import Given

INPUTS = {
  'latent',
  'label',
  'loss_t',
  'loss_noise',
  'head_x',
  'head_t',
  'gen_noise',
}
# Tokens along a side of the official rotations.
_SIDE = 16


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args = case.args
  first, second = xar.halves_of(args)
  args.only(img_size=args['vae_stride'] * args['scale'][-1])
  config = common.new()
  parts.flowar(
    config,
    scales=args['scale'],
    channels=args['vae_embed_dim'],
    classes=case.meta['weights']['class_emb.weight']['shape'][0] - 1,
    width=first['width'],
    heads=first['heads'],
    depth=args['encoder_depth'],
    second_depth=args['decoder_depth'],
    head=parts.CROSS if args['cross'] else parts.SELF,
    head_width=args['diffloss_w'],
    head_depth=args['diffloss_d'],
    head_heads=args['flow_head_heads'],
    dropout=0.0,
  )
  config.backbone.block.mlp.hidden = first['hidden']
  if second != first:
    mar_parts.second_half(config, **second)
    config.release.second_heads = second['heads']
  config.head.block.mlp.hidden = args['head_swiglu_hidden']
  _set_sampler(config, case.generation)
  return config


def _set_sampler(config, run):
  """The sampler of the recorded call."""
  run.says('kind', 'replay')
  steps, below = run['num_steps'], run['guidance']
  run.only(guidance_interval_upper=below)
  # The official code guides with scales above 1 alone.
  config.sampler.guidance.schedule.end = max(run['cfg'], 1.0)
  config.sampler.guidance.level = below
  config.head.counts.update(first=steps, last=steps)
  levels = build(config.head.solver, 'solver').levels(steps)
  run.only(network_calls_per_scale=len(levels) - 1)


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, config = case.io, config_of(case)
  layout = build(config.layout, 'layout')
  # The official rotations count in 16ths of a side, whatever the grid.
  coords = layout.coords * np.float32(_SIDE / layout.grids[-1][0])
  layout = dataclasses.replace(layout, coords=coords)
  model = assemble.make_model(config).clone(layout=layout)
  batch, inputs = len(io['label']), {'label': io['label']}
  channels = config.head.channels
  half = functools.partial(Given, z_channels=2 * channels)
  codec = Pyramid(
    encoder=half,
    quantizer=functools.partial(KL, channels=channels),
    decoder=half,
    scales=layout.grids,
  ).bind({})
  shapes = assemble.model_shapes(model, lambda: codec, codec.spec.blank())
  params = imported(case, build(config.release, 'release'), shapes)

  latent = nhwc(io['latent'])
  tokens = codec.to_tokens(latent)
  yield 'gt_tokens', tokens.values
  recorded = {'level': io['loss_t'], 'noise': io['loss_noise']}
  draw = Replay(recorded, size=batch)
  slots, _ = model.feed.train(tokens, layout, codec, draw)
  yield 'ar_input', slots.values[:, layout.prefix :]

  lossy = (tokens, inputs, draw, codec)
  (terms, _), seen = intermediates(
    model, params, *lossy, train=False, method='losses'
  )
  first, head = seen['backbone'], seen['head']
  for name, whole in {
    'embed': first['_embed'][0],
    'after_block0': _blocks(first['stack'])[0],
    'encoder_out': first['norm_first']['__call__'][0],
    'decoder_after_block0': _blocks(first['stack_second'])[0],
    'decoder_norm': first['norm']['__call__'][0],
    'head_after_block0': _blocks(head['stack'])[0],
  }.items():
    yield name, xar.every(case, name, whole)

  @functools.partial(jax.jit, static_argnames='null')
  def forced(params, values, null):
    nulls = jnp.full((batch,), null)
    return model.apply(
      {'params': params},
      Tokens(values),
      inputs,
      codec,
      nulls,
      method='teacher_forced',
    )[0]

  z = forced(params, tokens.values, False)
  yield 'z', z[:, :, 0]

  def apply(method, *args):
    run = lambda p: model.apply({'params': p}, *args, method=method)
    return jax.jit(run)(params)

  entity = layout.entity_of_token
  query = Query(entity=entity, coords=layout.coords)
  x = mix(tokens.values, io['loss_noise'], io['loss_t'][:, entity])
  yield 'loss_model_input', x

  def velocity(model, z, x, level):
    return model.head.field(z, query.replace(values=x, level=level))

  def errors(model, z):
    return model.head.loss(z, tokens.values, draw, query)[0]

  yield 'loss_velocity', apply(velocity, z, x, io['loss_t'])
  error = apply(errors, z)
  per_scale = [error[:, entity == s].mean(1) for s in range(layout.steps)]
  yield 'loss_per_scale_per_image', jnp.stack(per_scale, 1)
  yield 'loss', total(terms).compute()

  given = io['z'][:, :, None]
  yield (
    'head_time_embedding',
    apply(lambda model, t: model.head.level(as_time(t)), io['head_t']),
  )
  yield (
    'head_velocity',
    apply(velocity, given, io['head_x'], io['head_t']),
  )

  if layout.grids[-1][0] != _SIDE:
    raise case.args.refused('img_size', 'sampling goes through 16 x 16 places')
  sampler = build(config.sampler, 'sampler')
  steps = layout.steps
  yield (
    'gen_scale_cfg',
    np.array([float(sampler.guidance(s, steps, 0.0)) for s in range(steps)]),
  )
  levels = model.head.solver.levels(model.head.counts(0, steps))[:-1]
  yield 'gen_t', levels
  times = np.asarray(as_time(jnp.asarray(levels))).astype(np.int32)
  yield 'gen_timesteps', np.tile(times, (steps, 1))

  # The unconditional half of the noise moves states that nothing reads: where
  # there is guidance, both halves go on from the conditional state.
  noise = io['gen_noise'][:batch]
  recorded = {
    'noise': tuple(noise[:, entity == s] for s in range(steps)),
  }
  draw = Replay(recorded, size=batch)
  drawn = jax.jit(
    lambda p: sample(model, p, sampler, inputs, draw, codec).values
  )(params)
  yield 'gen_tokens', drawn
  height, width = layout.grids[-1]
  last = drawn[:, -height * width :].reshape(batch, height, width, -1)
  yield 'gen', nchw(last)
  halves = [forced(params, drawn, null)[:, :, 0] for null in (False, True)]
  yield 'gen_z', xar.every(case, 'gen_z', jnp.concatenate(halves))


def _blocks(stack):
  """(layers, b, n, d) what the blocks of a stack gave."""
  return stack['layers']['block']['__call__'][0][0]


SYSTEMS = {
  'models.flowar.FlowAR': System(transformer, INPUTS),
}
