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


def bound(module, params, image):
  """The module with the official weights; every shape must agree."""
  own = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), image))
  shapes = jax.tree.map(lambda x: x.shape, own['params'])
  assert shapes == jax.tree.map(lambda x: x.shape, params)
  return module.bind({'params': params})


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
  return bound(module, params, image), io, image, limit


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
  return bound(module, params, image), io, image, limit


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
  close = functools.partial(recipe.close, limit=limit)
  close('encoder_out', codec.enc(image), recipe.nhwc(io['encoder_out']))
  f = codec.analyse(image)
  close('f', f, recipe.nhwc(io['f']))
  codes, sums, _ = codec.quantize(f)
  np.testing.assert_array_equal(np.concatenate(codes, 1), io['idx'])
  np.testing.assert_array_equal(codec.encode(image).values, io['idx'])
  wanted = recipe.nhwc(io['fhat_per_scale'])
  close('fhat_per_scale', np.stack(sums, 1), wanted)


def test_var_decodes():
  codec, io, image, limit = var()
  close = functools.partial(recipe.close, limit=limit)
  idx = Tokens(io['idx'])
  close('recon', codec.decode(idx), recipe.nhwc(io['recon']))
  part = Tokens(io['idx'][:, :5])
  close('recon_scale1', codec.decode(part), recipe.nhwc(io['recon_scale1']))
  out = codec.synthesise(codec.total(idx))
  wanted = recipe.nhwc(io['decoder_out_unclamped'])
  close('decoder_out_unclamped', out, wanted)
  close('call', codec(image).image, wanted)
  rand = Tokens(io['rand_idx'])
  close('rand_fhat', codec.total(rand), recipe.nhwc(io['rand_fhat']))
  close('rand_image', codec.decode(rand), recipe.nhwc(io['rand_image']))


@pytest.mark.parametrize('name', ['idx', 'rand_idx'])
def test_var_shows_each_scale_the_smaller_ones(name):
  codec, io, _, limit = var()
  grids, canvas, seen, start = codec.spec.grids, codec.canvas(2), [], 0
  for s, (height, width) in enumerate(grids[:-1]):
    values = jnp.asarray(io[name][:, start : start + height * width])
    canvas = codec.merge(canvas, values, s)
    seen.append(codec.view(canvas, s + 1))
    start += height * width
  wanted = io[name.replace('idx', 'var_input')]
  recipe.close(name, jnp.concatenate(seen, 1), wanted, limit)


def test_var_chooses_phi():
  _, io, _, _ = var()
  assert [phi_index(s, 5, 4) for s in range(5)] == io['phi_index'].tolist()


def test_var_loss_follows_its_definition():
  """Mean over scales of (1 + 0.25) mse(partial sum, f)."""
  codec, io, image, _ = var()
  sums = recipe.nhwc(io['fhat_per_scale'])
  f = recipe.nhwc(io['f'])[:, None]
  wanted = np.mean((sums - f) ** 2)
  losses = codec(image).losses
  np.testing.assert_allclose(losses['codebook'], wanted, rtol=1e-5)
  np.testing.assert_allclose(losses['commitment'], 0.25 * wanted, rtol=1e-5)


def test_llamagen_encodes():
  codec, io, image, limit = llamagen()
  close = functools.partial(recipe.close, limit=limit)
  close('encoder_out', codec.enc(image), recipe.nhwc(io['encoder_out']))
  close('z', codec.analyse(image), recipe.nhwc(io['z']))
  codes = codec.encode(image).values
  np.testing.assert_array_equal(codes, io['idx'])
  quant = codec.embed(codes).reshape(2, 6, 6, -1)
  close('quant', quant, recipe.nhwc(io['quant']))


def test_llamagen_decodes():
  codec, io, image, limit = llamagen()
  close = functools.partial(recipe.close, limit=limit)
  out = codec(image)
  close('recon', out.image, recipe.nhwc(io['recon']))
  close('vq_loss', out.losses['codebook'], io['vq_loss'])
  close('commit_loss', out.losses['commitment'], io['commit_loss'])
  latent = codec.embed(io['rand_idx']).reshape(2, 6, 6, -1)
  close('rand_quant', latent, recipe.nhwc(io['rand_quant']))
  close('rand_image', codec.synthesise(latent), recipe.nhwc(io['rand_image']))
  clipped = np.clip(recipe.nhwc(io['rand_image']), -1, 1)
  close('decode', codec.decode(Tokens(io['rand_idx'])), clipped)
