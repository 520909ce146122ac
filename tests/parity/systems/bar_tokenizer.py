"""BAR's tokenizer: bits of patches."""

import re
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.build import build
from arvision.configs.bar import parts
from arvision.importers import bar as table
from arvision.quantizers.fsq import SymmetricFSQ
from arvision.structs import Tokens
from arvision.tokenizers import adversarial, gram, losses, perceptual
from tests.parity.case import Case, System, imported, nchw, nhwc

INPUTS = {
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


CASES = {
  'bar_tokenizer': System(tokenizer, INPUTS),
}
