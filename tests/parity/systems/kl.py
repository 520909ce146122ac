"""The KL autoencoder of MAR."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from arvision.build import build
from arvision.configs.mar.tokenizer import kl16
from arvision.importers import kl as table
from arvision.quantizers.kl import Gaussian
from arvision.random import Replay
from tests.parity.case import Bound, Case, System, nchw, nhwc

INPUTS = {'image', 'noise', 'z'}
# The official encoder attends where an image of this size has so many places
# along a side, whatever image it is given.
_NOMINAL, _ATTENDING = 256, 16


def tokenizer_of(case: Case) -> Bound:
  """The tokenizer with the scale of MAR's latents."""
  args = case.args
  args.only(use_variational=True)
  args.ignore('ckpt_path', 'dropout')
  mult = tuple(args['ch_mult'])
  levels = range(len(mult))
  factor = 2 ** (len(mult) - 1)
  height, width = case.io['image'].shape[-2:]
  block = kl16(
    grid=(height // factor, width // factor),
    channels=args['embed_dim'],
    ch=args['ch'],
    ch_mult=mult,
    res_blocks=args['num_res_blocks'],
    encoder_levels=tuple(i for i in levels if _NOMINAL >> i == _ATTENDING),
  )
  return Bound(case, build(block, 'tokenizer'), table.Tokenizer())


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, codec = case.io, tokenizer_of(case)
  image, noise = nhwc(io['image']), nhwc(io['noise'])
  batch, grid = len(image), codec.module.spec.grids[0]

  def encode(codec, image, noise):
    draw = Replay({'posterior': noise}, size=batch)
    moments = codec.encode_moments(image)
    found = Gaussian.of(moments)
    rows = noise.reshape(batch, -1, noise.shape[-1])
    flat = Replay({'posterior': rows}, size=batch)
    latent = codec.visit(codec.store(image), flat).values
    out = codec.enc(image)
    return {
      'encoder_out': out,
      'moments': moments,
      'mean': found.mean,
      'std': found.std,
      'sample': found.sample(draw),
      'scaled_latent': latent.reshape(batch, *grid, -1),
      'kl': jnp.sum(found.kl(), (1, 2)),
    }

  found = codec(encode, image, noise)
  for name in ('encoder_out', 'moments', 'mean', 'std', 'sample'):
    yield name, nchw(found[name])
  yield 'scaled_latent', nchw(found['scaled_latent'])
  yield 'kl', found['kl']

  def decode(codec, latent):
    # `decode` clips as pictures want it; the recording is from before.
    return codec.decode_latents(codec.to_latent(codec.to_tokens(latent)))

  yield 'decoded', nchw(codec(decode, nhwc(io['z'])))
  whole = codec(lambda codec, x: codec(x).image, image)
  yield 'recon_from_mode', nchw(whole)


SYSTEMS = {
  'models.vae.AutoencoderKL': System(tokenizer, INPUTS),
}
