"""TiTok's tokenizers."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from arvision.build import build
from arvision.configs.maskgit import parts as maskgit_parts
from arvision.configs.titok import parts as titok_parts
from arvision.importers import titok as table
from arvision.structs import Tokens
from tests.parity.case import Bound, Case, nchw, nhwc

TOKENIZER_INPUTS = {'image', 'rand_idx'}


def _block(args):
  """Our block of the official constructor's arguments."""
  side = args['crop_size'] // args['patch_size']
  vit = dict(width=args['width'], depth=args['layers'], heads=args['heads'])
  sizes = {
    'length': args['num_latent_tokens'],
    'vocab_size': args['codebook_size'],
    'channels': args['token_size'],
    'encoder': vit,
    'decoder': vit,
    'grid': (side, side),
    'patch': args['patch_size'],
    'normalize': args['use_l2_norm'],
  }
  if not args['is_legacy']:
    return titok_parts.titok(**sizes)
  if not args.get('finetune_decoder', True):
    raise NotImplementedError('a legacy TiTok without its pixel decoder')
  pixel = args['pixel_decoder']
  other = maskgit_parts.maskgit_vq(
    grid=(side, side),
    vocab_size=args['pixel_codebook_size'],
    channels=pixel['z_channels'],
    ch=pixel['hidden_channels'],
    ch_mult=tuple(pixel['channel_mult']),
    res_blocks=pixel['num_res_blocks'],
    image_channels=pixel['num_channels'],
  )
  return titok_parts.legacy_titok(
    pixel_codes=args['pixel_codebook_size'],
    pixel_channels=pixel['z_channels'],
    pixel_decoder=other.decoder,
    **sizes,
  )


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, args = case.io, case.args
  codec = Bound(case, build(_block(args), 'tokenizer'), table.Tokenizer())
  image = 2 * nhwc(io['image']) - 1  # official pixels are in [0, 1]
  seen = _captured(codec, image)
  enc, dec = seen['enc'], seen['dec']
  yield 'patch_embed', nchw(enc['patches']['__call__'][0])
  yield 'enc_after_block0', _blocks(enc)[0]
  yield 'enc_ln_post', enc['norm_post']['__call__'][0]

  def encode(codec, image):
    z = codec.analyse(image)
    codes = codec.encode(image).values
    return z, codes, codec.embed(codes)[:, None]

  z, codes, quant = codec(encode, image)
  yield 'z', nchw(z)
  yield 'quant', nchw(quant)
  yield 'idx', codes[:, None]
  yield 'dec_after_block0', _blocks(dec)[0]
  if args['is_legacy']:
    logits = codec(lambda codec, z: codec.pixel_logits(z), quant)
    yield 'decoder_logits', nchw(logits)

  def decode(codec, codes):
    latent = codec.embed(codes)[:, None]
    return (codec.synthesise(latent) + 1) / 2

  yield 'recon', nchw(codec(decode, codes))
  yield 'rand_image', nchw(codec(decode, np.asarray(io['rand_idx'])[:, 0]))


def _captured(codec, image):
  """What the parts of encoder and decoder gave out on the way."""

  def both(module, image):
    return module.decode(Tokens(module.encode(image).values))

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
