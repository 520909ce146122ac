"""MaskGIT's tokenizer in bytedance/1d-tokenizer."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from arvision.build import build
from arvision.configs.maskgit import parts
from arvision.importers import maskgit as table
from arvision.structs import Tokens
from tests.parity.case import Bound, Case, System, nchw, nhwc

TOKENIZER_INPUTS = {'image', 'rand_idx'}


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, args = case.io, case.args
  args.ignore('commitment_cost', 'dropout', 'resolution')  # of training
  args.only(num_resolutions=len(args['channel_mult']))
  # Without further maps a latent has the width of its codes.
  args.only(embedding_dim=args['z_channels'])
  mult = tuple(args['channel_mult'])
  factor = 2 ** (len(mult) - 1)
  height, width = io['image'].shape[-2:]
  block = parts.maskgit_vq(
    grid=(height // factor, width // factor),
    vocab_size=args['codebook_size'],
    channels=args['z_channels'],
    ch=args['hidden_channels'],
    ch_mult=mult,
    res_blocks=args['num_res_blocks'],
    image_channels=args['num_channels'],
  )
  codec = Bound(case, build(block, 'tokenizer'), table.Tokenizer())

  # Official pixels are in [0, 1].
  def encode(codec, image):
    return codec.encode_latents(image), codec.encode(image).values

  out, codes = codec(encode, 2 * nhwc(io['image']) - 1)
  yield 'encoder_out', nchw(out)
  yield 'idx', codes

  def decode(codec, values):
    grid = codec.spec.grids[0]
    latent = codec.embed(values).reshape(len(values), *grid, -1)
    image = codec.decode(Tokens(values))
    return latent, (codec.decode_latents(latent) + 1) / 2, (image + 1) / 2

  yield 'recon', nchw(codec(decode, io['idx'])[2])
  latent, free, image = codec(decode, jnp.asarray(io['rand_idx']))
  yield 'rand_quant', nchw(latent)
  yield 'decoder_out_unclamped', nchw(free)
  yield 'rand_image', nchw(image)


SYSTEMS = {
  'modeling.titok.PretrainedTokenizer (encoder/decoder/quantize of '
  'modeling.modules.maskgit_vqgan)': System(tokenizer, TOKENIZER_INPUTS),
}
