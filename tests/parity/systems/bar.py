"""BAR: bits of patches, and bits that are unmasked in a few steps."""

import re
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.bar import parts
from arvision.importers import bar as table
from arvision.model import sample
from arvision.process.guidance import guide
from arvision.quantizers.fsq import SymmetricFSQ
from arvision.random import Replay
from arvision.structs import Tokens
from arvision.tasks import assemble
from arvision.tokenizers import adversarial, gram, losses, perceptual
from tests.parity.case import (
  Case,
  Part,
  System,
  captured,
  imported,
  nchw,
  nhwc,
)

TOKENIZER_INPUTS = {
  'images',
  'fsq_z',
  'tokens',
  'feat',
  'logits_real',
  'logits_fake',
}
# Of the official constructor.
_PATCH = 16


class Released(Case):
  """A case with the weights that a released file has and that are used."""

  def weights(self):
    unused = ('gram.', 'encoder.siglip.head.')
    return {
      k: v for k, v in super().weights().items() if not k.startswith(unused)
    }

  def _tensor(self, key, entry):
    # A copy has the weights of the tensor that it copies.
    copied = re.match(r'the same tensor as (\S+)', entry.get('derived', ''))
    if copied:
      return self._tensor(copied[1], self.meta['weights'][copied[1]])
    return super()._tensor(key, entry)


def tokenizer_of(case: Case) -> Any:
  """Our tokenizer of the official constructor's arguments."""
  args = case.args
  args.ignore('batch')
  enc, dec = args.inner('enc'), args.inner('dec')
  side = args['crop'] // _PATCH
  table_side = round(enc['num_patches'] ** 0.5)
  block = parts.tokenizer(
    bits=args['token_size'],
    grid=(side, side),
    patch=_PATCH,
    encoder={
      'width': enc['hidden'],
      'depth': enc['layers'],
      'heads': enc['heads'],
    },
    decoder={
      'width': dec['width'],
      'depth': dec['layers'],
      'heads': dec['heads'],
    },
    positions=(table_side, table_side),
    hidden=enc['inter'],
    align={'hidden': dec['proj'], 'layer': args['align'], 'weight': 0.7},
  )
  return build(block, 'tokenizer')


def quantiser(case: Case) -> Iterator[tuple[str, Any]]:
  z = jnp.asarray(case.io['fsq_z'])
  count = z.shape[-1]
  fsq = SymmetricFSQ(levels=(2,) * count, ids=count)
  yield 'fsq_bound', (fsq.latent(z) - 1) / 2
  # Straight through, as in training.
  codes = lambda z: fsq(fsq.latent(z)).vectors
  yield 'fsq_codes', codes(z)
  yield 'fsq_bits', fsq.quantize(fsq.latent(z))
  yield 'fsq_ste_grad', jax.grad(lambda z: jnp.sum(codes(z)))(z)


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, module = case.io, tokenizer_of(case)
  yield from quantiser(case)
  image = nhwc(io['images'])
  shapes = jax.eval_shape(module.init, jax.random.key(0), image[:1])['params']
  form = table.Tokenizer()
  params = imported(Released(case.folder), form, nn.unbox(shapes))

  @jax.jit
  def run(params):
    keep = lambda part, method: method in ('__call__', 'wanted', 'project')
    return module.apply(
      {'params': params}, image, capture_intermediates=keep, train=True
    )

  out, seen = run(params)
  seen = seen['intermediates']
  codec = module.bind({'params': params})
  rows = lambda x: x.reshape(len(x), -1, x.shape[-1])
  yield 'embeddings', rows(codec.enc.embed(image))
  yield 'enc_block0', _blocks(seen['enc'])[0]
  yield 'z', rows(seen['enc']['out']['__call__'][0])
  yield 'bits', codec.encode(image).values
  yield 'clip_gt', seen['align']['wanted'][0]
  yield 'clip_pred', seen['align']['project'][0]
  yield 'dec_ln_pre', seen['dec']['norm_pre']['__call__'][0]
  yield 'dec_block0', _blocks(seen['dec'])[0]
  yield 'recon', nchw(out.image)

  def decode(params, tokens):
    codec = module.bind({'params': params})
    values = tokens.reshape(len(tokens), codec.spec.length, -1)
    return codec.decode_latents(codec.to_latent(Tokens(values)))

  yield 'decoded', nchw(jax.jit(decode)(params, io['tokens']))
  l1, l2 = (jnp.mean(f(image, out.image)) for f in (losses.l1, losses.l2))
  yield 'loss_l1', l1[None]
  yield 'loss_l2', l2[None]
  yield 'loss_recon', (0.1 * l1 + l2)[None]
  yield 'loss_clip', out.losses['align'][None] / 0.7
  yield 'gram_matrix', gram.matrix(nhwc(io['feat'][None])[0])
  weights, layers = _stand_in(case)
  far = gram.distance(weights, image, out.image, layers)
  yield 'loss_gram', jnp.mean(far)[None]
  real, fake = (io[f'logits_{k}'][:, :, None, None] for k in ('real', 'fake'))
  yield 'loss_hinge_d', jnp.mean(adversarial.hinge(real, fake))[None]


def _stand_in(case):
  """Weights and layers of the small network of the recorded Gram loss."""
  start = 'gram.feature_extractor.'
  found = {
    k.replace(start, 'features.'): v
    for k, v in Case(case.folder).weights().items()
    if k.startswith(start)
  }
  layers, last = [], None
  for number in sorted({int(k.split('.')[1]) for k in found}):
    # After a convolution and its ReLU there may be a pool.
    if last is not None and number == last + 3:
      layers.append(perceptual.Pool(2))
    width, inputs = found[f'features.{number}.weight'].shape[:2]
    layers.append(perceptual.Conv(str(number), inputs, width))
    last = number
  return perceptual.converted(found), layers


def _blocks(half):
  return half['stack']['layers']['block']['__call__'][0][0]


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

  def run(draw):
    def program(params):
      return model.apply({'params': params}, draw, method=passed)

    return jax.jit(program)(params)

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
  noise = {'ids': io['u_bits'][..., None, :, :]}
  noise['confidence'] = _with_last(io['u_conf'])[..., None, :]
  order = {'order': np.argsort(io['order_u'], -1)}
  in_raster = {'order': np.tile(np.arange(layout.tokens), (batch, 1))}
  for name, scale, temp, more in (
    ('plain', 1.0, 0.0, in_raster),
    ('cfg', cfg_scale, 0.0, in_raster),
    ('noise', cfg_scale, temperature, in_raster),
    ('order', cfg_scale, temperature, order),
  ):
    config.sampler.type = (
      'samplers.shuffled.Shuffled'
      if name == 'order'
      else 'samplers.entity.EntityAR'
    )
    config.sampler.guidance.end = max(scale, 1.0)
    config.sampler.logits_filter.temperature = temp
    sampler = build(config.sampler, 'sampler')
    draw = Replay({**noise, **more}, size=batch)
    found = jax.jit(
      lambda p, s=sampler, d=draw: sample(model, p, s, inputs, d, codec).values
    )(params)
    bits = np.asarray(codec.to_latent(Tokens(found)) > 0, np.int32)
    yield f'gen_{name}_bits', bits.reshape(batch, -1, bits.shape[-1])
    latents, logits = _steps(model, params, found, inputs, sampler, noise, more)
    yield f'gen_{name}_latents', latents
    yield f'gen_{name}_logits', logits


def _with_last(u):
  """Uniform numbers of all steps of the head; the last one uses none."""
  return np.concatenate([u, np.ones_like(u[:, :1])], 1)


def _steps(model, params, tokens, inputs, sampler, noise, order):
  """The conditions (b or 2b, t, w) of the head in sampling, and its logits.

  The head takes all tokens at once; z comes from one pass over the sampled ones.
  """
  layout, batch = model.layout, len(tokens)
  # (tokens, steps, b, 1, ...) -> (steps, b, tokens, ...)
  moved = {k: np.moveaxis(v[..., 0, :], 0, 2) for k, v in noise.items()}
  moved['ids'] = np.moveaxis(noise['ids'][..., 0, :, :], 0, 2)
  draw = Replay(moved, size=batch)
  known = {'random': np.zeros(batch), **order}
  orders = Replay(known, progress=0.0, size=batch)
  steps = np.arange(layout.tokens)
  scale = np.asarray(sampler.guidance(steps, layout.tokens))
  active = sampler.guidance.active

  def merge(logits, level=None):
    if not active:
      return logits
    return guide(*jnp.split(logits, 2), scale[:, None, None])

  def run(model):
    slots, _ = model.feed.train(Tokens(tokens), layout, None, orders)
    z = [
      model.hidden(slots, inputs, jnp.full(batch, null))
      for null in (False, True)[: 1 + active]
    ]
    both = jnp.concatenate([x for x, _ in z])
    filter_ = sampler.logits_filter
    _, logits = model.head.unmask(both, draw, merge, filter_, z[0][1])
    return model.head.condition(both), jnp.moveaxis(logits, 2, 0)

  return jax.jit(lambda p: model.apply({'params': p}, method=run))(params)


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
  'bar_tokenizer': System(tokenizer, TOKENIZER_INPUTS),
  'bar_generator': System(generator, GENERATOR_INPUTS),
  'bar_patch': System(generator, GENERATOR_INPUTS),
}
