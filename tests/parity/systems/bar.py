"""BAR's generator: bits that are unmasked in a few steps."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.bar import parts
from arvision.model import sample
from arvision.process.guidance import guide
from arvision.random import Replay, gumbel
from arvision.structs import Tokens
from arvision.tasks import assemble
from tests.parity.case import Case, Part, System, captured, imported

# Small networks take longer to compile than to run.
_jit = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)

GENERATOR_INPUTS = {
  'tokens',
  'labels',
  'drop_u',
  'orders',
  'time_normal',
  'mask_u',
  'order_u',
  'u_bits',
  'u_conf',
}


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args, weights = case.args, case.meta['weights']
  args.ignore('batch')
  side, patch = round(args['seq'] ** 0.5), args['patch']
  bits = args['bits']
  used = 1 + args['repeat'] + args['seq'] // patch**2
  config = common.new()
  config.tokenizer = parts.tokenizer(
    bits=bits,
    grid=(side, side),
    patch=1,
    encoder=common.TINY,
    decoder=common.TINY,
    positions=(side, side),
  )
  parts.bar(
    config,
    grid=(side, side),
    bits=bits,
    classes=args['classes'],
    depth=args['layers'],
    width=args['hidden'],
    heads=args['heads'],
    allocation=tuple(args.get('alloc', (bits * patch**2,))),
    patch=patch,
    repeat=args['repeat'],
    head_width=args['mbm_width'],
    head_depth=args['mbm_layers'],
    spare_positions=weights['pos_embed']['shape'][1] - used,
    spare_steps=weights['timesteps_embeddings']['shape'][1] - used,
  )
  return config


def patches(codec: Any, bits: np.ndarray) -> np.ndarray:
  """(..., N bits) of the places in raster order -> tokens (..., t, parts)."""
  flat = bits.reshape(-1, *codec.latent_grid, codec.static.channels)
  tokens = np.asarray(codec.to_tokens(jnp.float32(2 * flat - 1)).values)
  return tokens.reshape(*bits.shape[:-1], *tokens.shape[1:])


def draws(case: Case, **more: Any) -> Replay:
  """What a pass of training draws."""
  io = case.io
  batch = len(io['labels'])
  per_token = lambda x: x.reshape(batch, -1, *x.shape[1:])
  recorded = {
    'null': io['drop_u'],
    'time': per_token(io['time_normal']),
    'head/mask': per_token(io['mask_u']),
    'order': io['orders'],
    'random': np.zeros(batch),
  }
  return Replay(recorded, size=batch, **more)


def generator(case: Case) -> Iterator[tuple[str, Any]]:
  io, args, config = case.io, case.args, config_of(case)
  cfg_scale, temperature = args['cfg_scale'], args['temp']
  model = assemble.make_model(config)
  codec = assemble.make_tokenizer(config).bind({})
  shapes = assemble.model_shapes(model, lambda: codec, codec.spec.blank())
  form = build(config.release, 'release')
  params = imported(case, form, shapes)
  layout, batch = model.layout, len(io['labels'])
  tokens, inputs = Tokens(patches(codec, io['tokens'])), {'label': io['labels']}
  flat = lambda x: np.asarray(x).reshape(-1, *x.shape[2:])
  read = np.s_[:, : layout.tokens]
  null = io['drop_u'] < model.condition.drop
  spare = config.condition.spare
  yield 'cond_ids', spare + np.where(null, args['classes'], io['labels'])

  def passed(model, draw):
    head = model.head
    slots, targets = model.feed.train(tokens, layout, codec, draw)
    z, query = model.hidden(slots, inputs, null)
    terms, _ = model.losses(tokens, inputs, draw, codec)
    share, masked = head.masking(z.shape[:2], draw)
    shown = jnp.where(masked, head.levels, targets.values)
    logits = head.field(z, query.replace(values=shown, level=share))
    loss = terms['tokens'].mean.compute()
    return loss, head.condition(z), logits, share, shown

  @_jit
  def program(params, draw):
    return model.apply({'params': params}, draw, method=passed)

  run = lambda draw: program(params, draw)
  shuffled, raster = draws(case, progress=0.0), draws(case, progress=1.0)
  seen = captured(model, params, shuffled, method=passed)
  loss, latents, logits, share, shown = run(shuffled)
  yield 'loss', loss[None]
  yield 'latents', Part(latents, read)
  yield 'head_logits', flat(logits)
  embed = model.backbone.input(width=config.backbone.width)
  own = {'params': params['backbone']['input']}
  yield 'input_embed', embed.apply(own, tokens.values)
  yield 'after_block0', Part(seen['blocks'][0], np.s_[:, : layout.slots])
  head = seen['modules']['head']
  yield 'head_ln_pre', flat(head['input_norm']['__call__'][0])
  yield 't_emb', flat(head['time']['__call__'][0])
  yield 'mask_ratio', flat(share)
  yield 'masked_bits', flat(shown)
  loss, latents, logits, *_ = run(raster)
  yield 'raster_loss', loss[None]
  yield 'raster_latents', Part(latents, read)
  yield 'raster_head_logits', flat(logits)

  case.generation.ignore('runs', 'kv_cache')
  case.generation.only(tokens_allocation=list(model.head.allocation))
  noise = {'ids': gumbel(io['u_bits'])[..., None, :, :]}
  noise['confidence'] = _with_last(gumbel(io['u_conf']))[..., None, :]
  in_raster = np.tile(np.arange(layout.tokens), (batch, 1))
  in_random = np.argsort(io['order_u'], -1)
  # Runs of one sampler share their programs.
  for scale, temp, kind, names in (
    (1.0, 0.0, 'entity.EntityAR', {'plain': in_raster}),
    (cfg_scale, 0.0, 'entity.EntityAR', {'cfg': in_raster}),
    (
      cfg_scale,
      temperature,
      'shuffled.Shuffled',
      {'noise': in_raster, 'order': in_random},
    ),
  ):
    config.sampler.type = f'samplers.{kind}'
    config.sampler.guidance.end = max(scale, 1.0)
    config.sampler.logits_filter.temperature = temp
    sampler = build(config.sampler, 'sampler')
    drawn = _jit(
      lambda p, draw, s=sampler: sample(model, p, s, inputs, draw, codec).values
    )
    traced = _jit(
      lambda p, *args, s=sampler: model.apply(
        {'params': p}, inputs, s, *args, method=_steps
      )
    )
    for name, order in names.items():
      found = drawn(params, Replay({**noise, 'order': order}, size=batch))
      bits = np.asarray(codec.to_latent(Tokens(found)) > 0, np.int32)
      yield f'gen_{name}_bits', bits.reshape(batch, -1, bits.shape[-1])
      latents, logits = traced(params, found, noise, order)
      yield f'gen_{name}_latents', latents
      yield f'gen_{name}_logits', logits


def _with_last(u):
  """Noise of all steps of the head; the last one uses none."""
  return np.concatenate([u, np.ones_like(u[:, :1])], 1)


def _steps(model, inputs, sampler, tokens, noise, order):
  """The conditions (b or 2b, t, w) of the head in sampling, and its logits.

  The head takes all tokens at once; z comes from one pass over the sampled ones.
  """
  layout, batch = model.layout, len(tokens)
  # (tokens, steps, b, 1, ...) -> (steps, b, tokens, ...)
  moved = {k: jnp.moveaxis(jnp.squeeze(v, 3), 0, 2) for k, v in noise.items()}
  draw = Replay(moved, size=batch)
  known = {'random': np.zeros(batch), 'order': order}
  orders = Replay(known, progress=0.0, size=batch)
  scale = np.asarray(sampler.guidance(np.arange(layout.tokens), layout.tokens))
  active = sampler.guidance.active

  def merge(logits, level=None):
    if not active:
      return logits
    return guide(*jnp.split(logits, 2), scale[:, None, None])

  slots, _ = model.feed.train(Tokens(tokens), layout, None, orders)
  z = [
    model.hidden(slots, inputs, jnp.full(batch, null))
    for null in (False, True)[: 1 + active]
  ]
  both = jnp.concatenate([x for x, _ in z])
  filter_ = sampler.logits_filter
  _, logits = model.head.unmask(both, draw, merge, filter_, z[0][1])
  return model.head.condition(both), jnp.moveaxis(logits, 2, 0)


def recorded(case: Case, i: int) -> dict[str, Any]:
  """Tokens (b, t, parts) of the i-th step of training, and what it draws."""
  io = {k: x[i] for k, x in case.io.items() if k in OF_STEPS}
  batch = len(io['drop_u'])
  codec = assemble.make_tokenizer(config_of(case)).bind({})
  draws = {
    'null': io['drop_u'],
    'time': io['time_normal'].reshape(batch, -1),
    'head/mask': io['mask_u'].reshape(batch, codec.spec.length, -1),
    'order': np.argsort(io['order_u'], -1),
    'random': io['blend_u'].reshape(batch),
  }
  return {'tokens': patches(codec, io['tokens']), 'draws': draws}


def orders(case: Case, i: int) -> Any:
  """(b, t) orders of prediction of the i-th step of training."""
  model, step = loaded(case)[1], recorded(case, i)
  layout, batch = model.layout, len(step['tokens'])
  progress = i / len(case.io['lr'])
  draw = Replay(step['draws'], progress=progress, size=batch)
  slots, _ = model.feed.train(Tokens(step['tokens']), layout, None, draw)
  return slots.target_position[:, layout.prefix - 1 :]


OF_STEPS = {'tokens', 'drop_u', 'order_u', 'blend_u', 'time_normal', 'mask_u'}


def loaded(case: Case) -> tuple[ConfigDict, Any, Any]:
  """Config, model and parameters of a case of training."""
  config, steps = config_of(case), len(case.io['lr'])
  begin, end = case.meta['training']['anneal']
  config.feed.update(start=begin / steps, end=end / steps)
  model = assemble.make_model(config)
  codec = assemble.make_tokenizer(config).bind({})
  shapes = assemble.model_shapes(model, lambda: codec, codec.spec.blank())
  form = build(config.release, 'release')
  return config, model, imported(case, form, shapes)


CASES = {
  'bar_generator': System(generator, GENERATOR_INPUTS),
  'bar_patch': System(generator, GENERATOR_INPUTS),
}
