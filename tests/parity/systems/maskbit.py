"""MaskBit: its tokenizers, and the generator LFQBert."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from arvision.build import build
from arvision.configs import common
from arvision.configs.maskbit import parts
from arvision.importers import maskbit as table
from arvision.importers.table import to_weights
from arvision.quantizers import lfq
from arvision.structs import Tokens
from tests.parity.case import Bound, Case, System, nchw, nhwc

TOKENIZER_INPUTS = {'image', 'tokens'}


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  module = build(_block(case), 'tokenizer')
  codec = Bound(case, module, table.Tokenizer())

  # Official pixels are in [0, 1].
  def encode(codec, image):
    z, codes = codec.encode_latents(image), codec.encode(image).values
    vectors = codec.to_latent(Tokens(codes))
    return z, vectors, codes, (codec.decode_latents(vectors) + 1) / 2

  z, vectors, codes, image = codec(encode, 2 * nhwc(io['image']) - 1)
  yield 'z', nchw(z)
  yield 'quant', nchw(vectors)
  yield 'idx', codes.reshape(io['idx'].shape)
  yield 'recon', nchw(image)

  def decode(codec, tokens):
    image = codec.decode_latents(codec.to_latent(Tokens(tokens)))
    return codec.embed(tokens), (image + 1) / 2

  bits, image = codec(decode, io['tokens'])
  yield 'token_bits', bits
  yield 'decoded', nchw(image)

  # At temperature 0.01 the entropy sees the last digits of z.
  latent = jnp.asarray(nhwc(io['z']))
  losses = codec(lambda codec, z: codec.quant(z).losses, latent)
  for name in ('commitment', 'entropy', 'codebook'):
    if name in losses:
      yield f'{name}_loss', losses[name]
  if isinstance(module.static, lfq.LFQ):
    flat = latent.reshape(-1, latent.shape[-1])
    each, mean = lfq.entropies(flat, module.static.temperature)
    yield 'per_sample_entropy', each
    yield 'avg_entropy', mean
  back = to_weights(table.Tokenizer(), codec.params, ((1, 1),))
  for name in ('bits_to_indices', 'codebook'):
    if f'quantize.{name}' in back:
      yield name, back[f'quantize.{name}']


def _block(case):
  """Our block of the official constructor's arguments."""
  args = case.args
  args.only(num_resolutions=len(args['channel_mult']), sample_with_conv=True)
  mult = tuple(args['channel_mult'])
  height, width = case.io['image'].shape[-2:]
  factor = 2 ** (len(mult) - 1)
  return parts.maskbit_tokenizer(
    quantizer=_quantizer(args),
    grid=(height // factor, width // factor),
    ch=args['hidden_channels'],
    ch_mult=mult,
    res_blocks=args['num_res_blocks'],
    image_channels=args['num_channels'],
  )


def _quantizer(args):
  size, channels = args['codebook_size'], args['token_size']
  if args['quantizer_type'] == 'lookup':
    quantizer = common.lookup(size, channels)
    quantizer.commitment = args['commitment_cost']
    return quantizer
  args.only(quantizer_type='lookup-free', codebook_size=2**channels)
  return parts.lfq(
    channels,
    commitment=args['commitment_cost'],
    entropy=args['entropy_loss_weight'],
    temperature=args['entropy_loss_temperature'],
    gamma=args['entropy_gamma'],
  )


SYSTEMS = {
  'modeling.conv_vqgan.ConvVQModel(config, legacy=False)': System(
    tokenizer, TOKENIZER_INPUTS
  ),
}
