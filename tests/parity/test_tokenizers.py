"""The tokenizers of VAR and LlamaGen against their official numbers."""

import functools
import re

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.layers import conv
from arvision.structs import Tokens
from arvision.tokenizers.residual import MultiScaleVQ, phi_index
from arvision.tokenizers.vq import VQ
from tests.parity import recipe


def var_path(key):
  key = re.sub(r'^(enc|dec)oder\.', r'\1.', key)
  key = re.sub(r'\.(down|up)\.(\d+)\.(block|attn)\.(\d+)', r'.\1_\2_\3_\4', key)
  key = re.sub(r'\.(down|up)\.(\d+)\.(down|up)sample', r'.\1_\2_\3sample', key)
  key = key.replace('.mid.', '.mid_')
  return key.replace('quantize.quant_resi.qresi_ls.', 'phi_')


def llamagen_path(key, levels):
  key = re.sub(r'^(enc|dec)oder\.', r'\1.', key)
  # The decoder counts its levels in the order of execution.
  key = re.sub(
    r'^dec\.conv_blocks\.(\d+)',
    lambda m: f'dec.up.{levels - 1 - int(m[1])}',
    key,
  )
  key = key.replace('enc.conv_blocks', 'enc.down')
  key = re.sub(r'\.(down|up)\.(\d+)\.res\.(\d+)', r'.\1_\2_block_\3', key)
  key = re.sub(r'\.(down|up)\.(\d+)\.attn\.(\d+)', r'.\1_\2_attn_\3', key)
  key = re.sub(r'\.(down|up)\.(\d+)\.(down|up)sample', r'.\1_\2_\3sample', key)
  names = ('mid_block_1', 'mid_attn_1', 'mid_block_2')
  return re.sub(r'\.mid\.(\d)', lambda m: '.' + names[int(m[1])], key)


def flax_params(weights, rename):
  """An official state dict in the layout of our modules."""
  flat = {}
  for key, w in weights.items():
    if key == 'quantize.embedding.weight':
      flat[('codebook',)] = w
      continue
    *path, leaf = rename(key).split('.')
    if 'norm' in path[-1]:
      path.append({'weight': 'scale', 'bias': 'bias'}[leaf])
    else:
      path.append({'weight': 'kernel', 'bias': 'bias'}[leaf])
      w = w.transpose(2, 3, 1, 0) if w.ndim == 4 else w
    if path[-2] == 'qkv':
      for name, part in zip('qkv', np.split(w, 3, axis=-1)):
        flat[(*path[:-2], name, path[-1])] = part
    else:
      flat[tuple(path)] = w
  return flax.traverse_util.unflatten_dict(flat)


class Bound:
  """A module with the official weights, run as whole compiled programs."""

  def __init__(self, module, params, image):
    own = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), image))
    shapes = jax.tree.map(lambda x: x.shape, own['params'])
    assert shapes == jax.tree.map(lambda x: x.shape, params)
    self.module, self.params = module, params

  def __call__(self, f, *args):
    """f(bound module, *args)."""
    program = jax.jit(lambda p, *a: f(self.module.bind({'params': p}), *a))
    return program(self.params, *args)


def autoencoder(meta):
  args = meta['constructor']
  sizes = {
    'ch': args['ch'],
    'ch_mult': tuple(args.get('ch_mult') or args['encoder_ch_mult']),
    'res_blocks': args['num_res_blocks'],
  }
  z = args['z_channels']
  return {
    'encoder': functools.partial(conv.Encoder, z_channels=z, **sizes),
    'decoder': functools.partial(conv.Decoder, **sizes),
  }


@functools.cache
def var():
  meta, io = recipe.load('var_vqvae')
  args = meta['constructor']
  module = MultiScaleVQ(
    **autoencoder(meta),
    vocab_size=args['vocab_size'],
    channels=args['z_channels'],
    scales=tuple(args['v_patch_nums']),
  )
  image = recipe.nhwc(io['image'])
  params = flax_params(recipe.weights(meta), var_path)
  limit = meta['suggested']['strict_rel_to_max']
  return Bound(module, params, image), io, image, limit


@functools.cache
def llamagen():
  meta, io = recipe.load('llamagen_vq')
  args = meta['constructor']
  module = VQ(
    **autoencoder(meta),
    vocab_size=args['codebook_size'],
    channels=args['codebook_embed_dim'],
    grid=(6, 6),
  )
  image = recipe.nhwc(io['image'])
  rename = functools.partial(llamagen_path, levels=3)
  params = flax_params(recipe.weights(meta), rename)
  limit = meta['suggested']['strict_rel_to_max']
  return Bound(module, params, image), io, image, limit


def test_the_recipe_draws_the_weights_it_states():
  # The check that the recipe gives for itself.
  meta = {
    'weights_seed': 12000,
    'weights': {
      'blocks.0.attn.proj.weight': {'shape': [3], 'mean': 0.0, 'std': 0.125}
    },
  }
  drawn = recipe.weights(meta)['blocks.0.attn.proj.weight']
  np.testing.assert_allclose(
    drawn, [-0.011387366, 0.20891146, 0.017873602], rtol=1e-6
  )


def test_var_encodes():
  codec, io, image, limit = var()

  def f(codec, image):
    latent = codec.analyse(image)
    codes, sums, _ = codec.quantize(latent)
    return codec.enc(image), latent, codes, jnp.stack(sums, 1), codec(image)

  out, latent, codes, sums, whole = codec(f, image)
  close = functools.partial(recipe.close, limit=limit)
  close('encoder_out', out, recipe.nhwc(io['encoder_out']))
  close('f', latent, recipe.nhwc(io['f']))
  np.testing.assert_array_equal(np.concatenate(codes, 1), io['idx'])
  np.testing.assert_array_equal(whole.codes, io['idx'])
  close('fhat_per_scale', sums, recipe.nhwc(io['fhat_per_scale']))
  close('call', whole.image, recipe.nhwc(io['decoder_out_unclamped']))
  # Mean over scales of (1 + 0.25) mse(partial sum, f).
  sums, latent = recipe.nhwc(io['fhat_per_scale']), recipe.nhwc(io['f'])
  wanted = np.mean((sums - latent[:, None]) ** 2)
  close('codebook', whole.losses['codebook'], wanted)
  close('commitment', whole.losses['commitment'], 0.25 * wanted)


@pytest.mark.parametrize('name', ['idx', 'rand_idx'])
def test_var_decodes(name):
  codec, io, _, limit = var()

  def f(codec, values):
    total = codec.total(Tokens(values))
    rough = codec.decode(Tokens(values[:, :5]))
    return total, codec.synthesise(total), codec.decode(Tokens(values)), rough

  total, image, decoded, rough = codec(f, io[name])
  close = functools.partial(recipe.close, limit=limit)
  if name == 'idx':
    close('fhat', total, recipe.nhwc(io['fhat_per_scale'][:, -1]))
    close('unclamped', image, recipe.nhwc(io['decoder_out_unclamped']))
    close('recon', decoded, recipe.nhwc(io['recon']))
    close('recon_scale1', rough, recipe.nhwc(io['recon_scale1']))
  else:
    close('rand_fhat', total, recipe.nhwc(io['rand_fhat']))
    close('rand_image', decoded, recipe.nhwc(io['rand_image']))


@pytest.mark.parametrize('name', ['idx', 'rand_idx'])
def test_var_shows_each_scale_the_smaller_ones(name):
  codec, io, _, limit = var()

  def f(codec, values):
    canvas, seen, start = codec.canvas(2), [], 0
    for s, (height, width) in enumerate(codec.spec.grids[:-1]):
      stop = start + height * width
      canvas = codec.merge(canvas, values[:, start:stop], s)
      seen.append(codec.view(canvas, s + 1))
      start = stop
    return jnp.concatenate(seen, 1)

  wanted = io[name.replace('idx', 'var_input')]
  recipe.close(name, codec(f, io[name]), wanted, limit)


def test_var_chooses_phi():
  _, io, _, _ = var()
  assert [phi_index(s, 5, 4) for s in range(5)] == io['phi_index'].tolist()


def test_llamagen_encodes():
  codec, io, image, limit = llamagen()

  def f(codec, image):
    codes = codec.encode(image).values
    quant = codec.embed(codes).reshape(2, 6, 6, -1)
    return codec.enc(image), codec.analyse(image), codes, quant, codec(image)

  out, z, codes, quant, whole = codec(f, image)
  close = functools.partial(recipe.close, limit=limit)
  close('encoder_out', out, recipe.nhwc(io['encoder_out']))
  close('z', z, recipe.nhwc(io['z']))
  np.testing.assert_array_equal(codes, io['idx'])
  close('quant', quant, recipe.nhwc(io['quant']))
  close('recon', whole.image, recipe.nhwc(io['recon']))
  close('vq_loss', whole.losses['codebook'], io['vq_loss'])
  close('commit_loss', whole.losses['commitment'], io['commit_loss'])


def test_llamagen_decodes():
  codec, io, _, limit = llamagen()

  def f(codec, values):
    latent = codec.embed(values).reshape(2, 6, 6, -1)
    return latent, codec.synthesise(latent), codec.decode(Tokens(values))

  latent, image, decoded = codec(f, io['rand_idx'])
  close = functools.partial(recipe.close, limit=limit)
  close('rand_quant', latent, recipe.nhwc(io['rand_quant']))
  close('rand_image', image, recipe.nhwc(io['rand_image']))
  close('decode', decoded, np.clip(recipe.nhwc(io['rand_image']), -1, 1))
