"""FlowAR: the transformer over scales, its flow head, and their samples."""

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
from arvision.configs.flowar import parts
from arvision.importers import flowar as table
from arvision.layers.level import as_time
from arvision.metrics import total
from arvision.model import sample
from arvision.process.flow import mix
from arvision.structs import Replay, Tokens, blank_tokens
from arvision.tasks import assemble
from arvision.tokenizers.kl import PyramidKL
from tests.parity.case import Case, imported, intermediates, nchw, nhwc
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


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args, given = case.args, case.call
  if args['encoder_embed_dim'] != args['decoder_embed_dim']:
    raise NotImplementedError('two widths')
  if args['encoder_num_heads'] != args['decoder_num_heads']:
    raise NotImplementedError('two numbers of heads')
  if args.get('buffer_size') or args.get('patch_size', 1) != 1:
    raise NotImplementedError('a buffer or patches')
  config = common.new()
  parts.flowar(
    config,
    scales=args['scale'],
    channels=args['vae_embed_dim'],
    classes=case.meta['weights']['class_emb.weight']['shape'][0] - 1,
    width=args['encoder_embed_dim'],
    heads=args['encoder_num_heads'],
    depth=args['encoder_depth'],
    second_depth=args['decoder_depth'],
    head=parts.CROSS if args['cross'] else parts.SELF,
    head_width=args['diffloss_w'],
    head_depth=args['diffloss_d'],
    head_heads=args['flow_head_heads'],
    dropout=0.0,
    guidance=given['cfg'],
    below=given['guidance'],
    steps=given['num_steps'],
  )
  config.backbone.mlp.hidden = args['swiglu_hidden']
  config.head.mlp.hidden = args['head_swiglu_hidden']
  return config


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, config = case.io, config_of(case)
  model, layout = assemble.make_model(config), build(config.layout, 'layout')
  batch, inputs = len(io['label']), {'label': io['label']}
  channels = config.head.channels
  half = functools.partial(Given, z_channels=2 * channels)
  codec = PyramidKL(
    encoder=half, decoder=half, channels=channels, scales=layout.grids
  ).bind({})
  shapes = assemble.model_shapes(model, lambda: codec, blank_tokens(codec.spec))
  form = table.Transformer(config.backbone.heads)
  params = imported(case, form, shapes)
  every = int(re.findall(r'every (\d+)-th', case.meta['stored_tokens'])[0])
  some = np.s_[:, ::every]

  latent = nhwc(io['latent'])
  tokens = Tokens(codec.scaled(latent.reshape(batch, -1, latent.shape[-1])))
  yield 'gt_tokens', tokens.values
  recorded = {'level': io['loss_t'], 'noise': io['loss_noise']}
  draw = Replay(recorded, size=batch)
  slots = model.feed.train(tokens, layout, codec, draw)
  yield 'ar_input', slots.values[:, layout.prefix :]

  lossy = (tokens, inputs, draw, codec)
  seen = intermediates(model, params, *lossy, train=False, method='losses')
  first, head = seen['backbone'], seen['head']
  yield 'embed', first['_embed'][0][some]
  yield 'after_block0', _blocks(first['stack'])[0][some]
  yield 'encoder_out', first['norm_first']['__call__'][0][some]
  yield 'decoder_after_block0', _blocks(first['stack_second'])[0][some]
  yield 'decoder_norm', first['norm']['__call__'][0][some]
  yield 'head_after_block0', _blocks(head['stack'])[0][some]

  @functools.partial(jax.jit, static_argnames='null')
  def taught(params, values, null):
    nulls = jnp.full((batch,), null)
    return model.apply(
      {'params': params}, Tokens(values), inputs, codec, nulls, method='taught'
    )[0]

  z = taught(params, tokens.values, False)
  yield 'z', z[:, :, 0]

  def apply(method, *args):
    run = lambda p: model.apply({'params': p}, *args, method=method)
    return jax.jit(run)(params)

  entity = layout.entity_of_token
  at = slots.replace(entity=entity, coords=layout.coords)
  x = mix(tokens.values, io['loss_noise'], io['loss_t'][:, entity])
  yield 'loss_model_input', x

  def velocity(model, z, x, level):
    return model.head.field(z, x, level, at)

  def errors(model, z):
    return model.head.loss(z, tokens.values, draw, at)[0]

  yield 'loss_velocity', apply(velocity, z, x, io['loss_t'])
  error = apply(errors, z)
  per_scale = [error[:, entity == s].mean(1) for s in range(layout.steps)]
  yield 'loss_per_scale_per_image', jnp.stack(per_scale, 1)
  terms, _ = jax.jit(
    lambda p: model.apply({'params': p}, *lossy, train=False, method='losses')
  )(params)
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
  halves = [taught(params, drawn, null)[:, :, 0] for null in (False, True)]
  yield 'gen_z', jnp.concatenate(halves)[some]


def _blocks(stack):
  """(layers, b, n, d) what the blocks of a stack gave."""
  return stack['layers']['block']['__call__'][0][0]
