"""TiTok's tokenizers."""

import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import build
from arvision.configs.maskgit import parts as maskgit_parts
from arvision.configs.titok import parts as titok_parts
from arvision.importers import titok as table
from arvision.quantizers.kl import Gaussian
from arvision.random import Replay
from arvision.structs import Tokens
from arvision.tasks.base import Averages, TrainState
from arvision.tasks.proxy import TrainProxy
from tests.parity.case import Bound, Case, System, imported, nchw, nhwc
from tests.parity.systems import training

TOKENIZER_INPUTS = {
  'image',
  'rand_idx',
  'noise',
  'eps',
  'rand_z',
  'rand_latent',
}
_HALVES = ('encoder', 'decoder')


def _block(case):
  """Our block of the official constructor's arguments."""
  args = case.args
  codes = args.get('quantize_mode', 'vq') == 'vq'
  args.ignore('commitment_cost')
  if not codes:
    args.ignore('codebook_size', 'use_l2_norm')
  patches = [_option(args, half, 'patch_size') for half in _HALVES]
  grid, decoder_grid = ((args['crop_size'] // p,) * 2 for p in patches)
  encoder, decoder = (_size(args, half) for half in _HALVES)
  sizes = {
    'length': args['num_latent_tokens'],
    'vocab_size': args['codebook_size'] if codes else 0,
    'channels': args['token_size'],
    'encoder': encoder,
    'decoder': decoder,
    'grid': grid,
    'patch': patches[0],
    'normalize': codes and args['use_l2_norm'],
  }
  if args.get('finetune_decoder', True):
    args.only(is_legacy=True, quantize_mode='vq')
    block = _finetuned(args, sizes)
  else:
    block = titok_parts.titok(**sizes)
  if args['is_legacy'] and not args.get('finetune_decoder', True):
    # The first stage ends with logits over the codes of another tokenizer.
    codes = case.meta['weights']['decoder.ffn.2.weight']['shape'][0]
    block.encoder.type = 'layers.vit.LegacyEncoder'
    block.decoder.update(type='layers.vit.CodesDecoder', codes=codes)
  block.decoder.update(grid=decoder_grid, patch=patches[1])
  return block


def _finetuned(args, sizes):
  pixel = args.inner('pixel_decoder')
  pixel.only(num_resolutions=len(pixel['channel_mult']))
  pixel.ignore('dropout', 'resolution')
  other = maskgit_parts.maskgit_vq(
    grid=sizes['grid'],
    vocab_size=args['pixel_codebook_size'],
    channels=pixel['z_channels'],
    ch=pixel['hidden_channels'],
    ch_mult=tuple(pixel['channel_mult']),
    res_blocks=pixel['num_res_blocks'],
    image_channels=pixel['num_channels'],
  )
  return titok_parts.legacy_titok(pixels=other, **sizes)


def _size(args, half):
  """Width, layers and heads of a half, as numbers or by a name."""
  name = f'vit_{half[:3]}_model_size'
  if name in args and not any('width' in key for key in args):
    return titok_parts.SIZES[args[name]]
  args.ignore(name)
  names = {'width': 'width', 'depth': 'layers', 'heads': 'heads'}
  return {k: _option(args, half, name) for k, name in names.items()}


def _option(args, half, name):
  """An option of one half, or of both."""
  short = half[:3]
  own = (f'{half}_{name}', f'{short}_{name}', f'vit_{short}_{name}')
  return args.first(*own, f'{name}_{half}', f'{name}_{short}', name)


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  codec = Bound(case, build(_block(case), 'tokenizer'), table.Tokenizer())
  image = 2 * nhwc(io['image']) - 1  # official pixels are in [0, 1]
  noise = io.get('noise', io.get('eps'))
  draw = None
  if noise is not None:
    draw = Replay({'posterior': nhwc(noise)}, size=len(image))
  seen = _captured(codec, image, draw)
  enc, dec = seen['enc'], seen['dec']
  yield 'patch_embed', nchw(enc['patches']['__call__'][0])
  yield 'enc_after_block0', _blocks(enc)[0]
  yield 'enc_ln_post', enc['norm_post']['__call__'][0]
  yield 'dec_after_block0', _blocks(dec)[0]
  yield 'decoder_logits', nchw(dec['__call__'][0])
  if codec.module.spec.codes:
    yield from _of_codes(io, codec, image)
  else:
    yield from _of_latents(io, codec, image, draw)


def _of_codes(io, codec, image):
  def encode(codec, image):
    z = codec.encode_latents(image)
    codes = codec.encode(image).values
    return z, codes, codec.embed(codes)[:, None]

  z, codes, quant = codec(encode, image)
  yield 'z', nchw(z)
  yield 'quant', nchw(quant)
  yield 'idx', codes[:, None]

  def decode(codec, codes):
    latent = codec.embed(codes)[:, None]
    return (codec.decode_latents(latent) + 1) / 2

  yield 'recon', nchw(codec(decode, codes))
  yield 'rand_image', nchw(codec(decode, np.asarray(io['rand_idx'])[:, 0]))


def _of_latents(io, codec, image, draw):
  """A sample of the posterior where its noise is recorded, or the mean."""

  def encode(codec, image):
    moments = codec.encode_moments(image)
    found = Gaussian.of(moments)
    latent = codec.quant.latent(moments, draw)
    return moments, found, latent, (codec.decode_latents(latent) + 1) / 2

  moments, found, latent, recon = codec(encode, image)
  for name in ('z', 'moments', 'parameters'):
    yield name, nchw(moments)
  yield 'mean', nchw(found.mean)
  yield 'logvar', nchw(found.log_variance)
  yield 'std', nchw(found.std)
  for name in ('quant', 'sample', 'z_quantized'):
    yield name, nchw(latent)
  # The official divergence keeps the axis of the tokens.
  nats = found.kl()[:, 0]
  yield 'kl', nats if io.get('kl', nats).ndim == 2 else nats.sum(-1)
  yield 'recon', nchw(recon)
  rand = io.get('rand_z', io.get('rand_latent'))
  if rand is not None:
    decode = lambda codec, z: (codec.decode_latents(z) + 1) / 2
    yield 'rand_image', nchw(codec(decode, nhwc(rand)))


def _captured(codec, image, draw):
  """What the parts of encoder and decoder gave out on the way."""

  def both(module, image):
    latent = module.quant.latent(module.encode_moments(image), draw)
    return module.decode(module.to_tokens(latent))

  @jax.jit
  def run(params):
    return codec.module.apply(
      {'params': params},
      image,
      method=both,
      capture_intermediates=True,
      mutable=['intermediates'],
    )[1]['intermediates']

  return run(codec.params)


def _blocks(half):
  return half['stack']['layers']['block']['__call__'][0][0]


class Teacher:
  """Stands for the tokenizer whose codes are predicted: has recorded ones."""

  def bind(self, codes: Any) -> 'Teacher':
    self.codes = codes
    return self

  def encode(self, image: Any) -> Tokens:
    return Tokens(self.codes)


def proxy_steps(case: Case) -> Iterator[tuple[str, Any]]:
  """The first stage of a legacy TiTok."""
  io, args = case.io, case.args
  args.only(finetune_decoder=False, is_legacy=True)
  weight = case.training.get('quantizer_weight', 1.0)
  block = _block(case)
  # Its decoder of pixels is not run, so it has no parameters.
  pixels = maskgit_parts.maskgit_vq(
    grid=block.decoder.grid, vocab_size=block.decoder.codes, channels=1, ch=1
  )
  block.update(
    type='tokenizers.legacy_titok.LegacyTiTok',
    pixel_quantizer=pixels.quantizer,
    pixel_decoder=pixels.decoder,
  )
  block.quantizer.commitment = args['commitment_cost']
  module, form = build(block, 'tokenizer'), table.Tokenizer()
  images = 2 * nhwc(io['images']) - 1
  key = jax.random.key(0)
  init = functools.partial(module.init, method='proxy')
  shapes = nn.unbox(jax.eval_shape(init, key, images[0])['params'])
  params = jax.tree.map(jnp.asarray, imported(case, form, shapes))
  task = TrainProxy(
    tokenizer=module,
    tx=training.optimizer(case, titok_parts.NO_DECAY),
    image_shape=images.shape[2:],
    ema=Averages(()),
    teacher=Teacher,
    quantizer=weight,
  )
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params={'tokenizer': params},
    opt_state=task.optimizer.init({'tokenizer': params}),
    ema={},
    extra=task.extra(),
  )
  step = jax.jit(task.step)
  encode = jax.jit(
    lambda params, x: module.apply({'params': params}, x, method='encode')
  )
  chosen, metrics = [], []
  for image, codes in zip(images, io['proxy_codes']):
    chosen.append(encode(state.params['tokenizer'], image).values)
    frozen, batch = {'teacher': jnp.asarray(codes)}, {'image': image}
    state, found = step(state, frozen, batch)
    metrics.append(jax.device_get(found))
  of = lambda *names: np.array([sum(m[n] for n in names) for m in metrics])
  yield 'token_ids', np.array(chosen)
  yield 'loss', of('loss')
  yield 'reconstruction_loss', of('proxy')
  yield 'quantizer_loss', weight * of('codebook', 'commitment')
  yield 'grad_norm', of('gradient_norm/tokenizer')
  after = state.params['tokenizer']
  yield from training.fingerprints(case, form, params, after, {})


TRAINING = {
  'modeling.titok.TiTok': System(
    proxy_steps,
    {'images', 'proxy_codes', 'lr', 'weight_decay'},
    training.limits,
  ),
}
SYSTEMS = {
  'modeling.titok.TiTok': System(tokenizer, TOKENIZER_INPUTS),
}
