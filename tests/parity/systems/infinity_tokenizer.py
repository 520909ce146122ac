"""Infinity: its tokenizers of bits."""

import functools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from arvision.importers import infinity as table
from arvision.layers import conv
from arvision.layers.resize import resize
from arvision.layouts.scales import Grids
from arvision.quantizers.bsq import BSQ
from arvision.random import Replay
from arvision.structs import Tokens
from arvision.tokenizers.autoencoder import flat
from arvision.tokenizers.bitwise import BitwisePyramid
from tests.parity.case import Bound, Case, System, nchw, nhwc
from tests.parity.stated import Stated
from tests.parity.systems.var import views

# Largest share of flips; cases state those that were drawn.
FLIPS = 1.0


def scales_of(args: Stated) -> Grids:
  """(height, width) of the scales of a schedule of images."""
  schedule = args['scale_schedule']
  if any(t != 1 for t, _, _ in schedule):
    raise args.refused('scale_schedule', 'images have one frame')
  return tuple((h, w) for _, h, w in schedule)


def numbered(*names):
  """Names of arrays of as many scales as there may be."""
  return {f'{name}_{s}' for name in names for s in range(32)}


INPUTS = {
  'image',
  'bsc_strength',
  *numbered('rand_bits', 'bsc_uniform'),
}


def flips_of(shares: Any, uniforms: Any, largest: float) -> dict[str, Any]:
  """Recorded flips as the draws of `BitwisePyramid.visit`.

  Args:
    shares: (scales,) share of flipped bits, in whole percent.
    uniforms: of every scale with flips, (b, 1, h, w, bits).
    largest: share.
  """
  # In the middle of the numbers that become this share.
  share = np.float32(
    (np.round(100 * np.asarray(shares)) + 0.5) / (np.round(100 * largest) + 1)
  )
  return {
    'share': np.tile(share, (len(uniforms[0]), 1)),
    **{f'flip_{s}': flat([u[:, 0]]) for s, u in enumerate(uniforms)},
  }


def tokenizer_of(case: Case) -> Bound:
  args = case.args
  args.only(new_quant=True)
  channels = args['codebook_dim']
  sizes = {
    'ch': args['base_ch'],
    'res_blocks': args['num_res_blocks'],
    'attention': False,
  }
  module = BitwisePyramid(
    encoder=functools.partial(
      conv.Encoder,
      z_channels=channels,
      ch_mult=tuple(args['encoder_ch_mult']),
      **sizes,
    ),
    decoder=functools.partial(
      conv.Decoder, ch_mult=tuple(args['decoder_ch_mult']), **sizes
    ),
    quantizer=functools.partial(BSQ, channels=channels),
    scales=scales_of(args),
    flips=FLIPS,
    flipped_scales=len(case.io['bsc_strength']),
  )
  return Bound(case, module, table.Tokenizer())


def _flips(case):
  shares = case.io['bsc_strength']
  uniforms = [case.io[f'bsc_uniform_{s}'] for s in range(len(shares))]
  return flips_of(shares, uniforms, FLIPS)


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, codec = case.io, tokenizer_of(case)
  grids = codec.module.grids
  image = nhwc(io['image'])

  def per_scale(tokens):
    """(b, t, bits) -> (b, 1, h, w, bits) of every scale."""
    ends = np.cumsum([h * w for h, w in grids])[:-1]
    parts = np.split(np.asarray(tokens), ends, axis=1)
    return [p.reshape(len(p), 1, *g, -1) for p, g in zip(parts, grids)]

  def encode(codec, image):
    latent = codec.encode_latents(image)
    values, sums, _ = codec.quantize(latent)
    return latent, jnp.concatenate(values, 1), jnp.stack(sums)

  z, bits, sums = codec(encode, image)
  yield 'z', nchw(z)
  yield 'quant', nchw(sums[-1])
  for s, own in enumerate(per_scale(bits)):
    yield f'bits_{s}', own

  def decode(codec, values):
    latent = codec.to_latent(Tokens(values))
    return latent, codec.decode_latents(latent), codec.decode(Tokens(values))

  _, decoded, _ = codec(decode, bits)
  yield 'decoded', nchw(decoded)
  random = [io[f'rand_bits_{s}'] for s in range(len(grids))]
  summed, _, image = codec(decode, jnp.int32(flat([x[:, 0] for x in random])))
  yield 'rand_summed', nchw(summed)
  yield 'rand_image', nchw(image)
  yield (
    'mask',
    table.Tokenizer().buffers(case.weights(), ())['quantize.lfq.mask'],
  )

  for s in range(1, len(grids)):
    small = resize(sums[s - 1], grids[s], 'area')
    yield f'var_input_area_{s}', nchw(small)

  draw = Replay(_flips(case), progress=0.0, size=len(z))

  def visit(codec, stored):
    tokens = codec.visit(stored, draw)
    return tokens.values, views(codec, tokens.shown)

  labels, shown = codec(visit, flat([z]))
  yield 'bsc_labels', labels
  yield 'bsc_x_BLC_wo_prefix', shown
  yield 'clean_labels', bits
  yield 'clean_x_BLC_wo_prefix', codec(views, bits)


SYSTEMS = {
  'infinity.models.bsq_vae.flux_vqgan.AutoEncoder': System(tokenizer, INPUTS),
}
