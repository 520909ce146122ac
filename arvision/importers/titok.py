"""The released weights of TiTok: its tokenizers and their generators.

Source: bytedance/1d-tokenizer, modeling/titok.py, modeling/modules/blocks.py and
modeling/maskgit.py.
"""

from arvision.importers import autoencoder
from arvision.importers.table import (
  Conv,
  Grids,
  Linear,
  Row,
  Same,
  Weights,
  dense,
  in_thirds,
  norm,
)


class Tokenizer:
  """`tokenizer_titok_l32.bin` and its like, legacy or not."""

  name = 'TiTok tokenizer'
  wrapping = ''
  hints = (
    (r'transformer', 'config.tokenizer.encoder and decoder: width, depth'),
    (r'^latent_tokens|latent_token_pos', 'config.tokenizer.grid'),
    (r'positional_embedding', 'config.data.size and patch'),
    (r'^quantize\.embedding', 'config.tokenizer.vocab_size and channels'),
    (
      r'^pixel_|decoder\.ffn|decoder\.conv_out',
      'config.tokenizer.type: legacy models have a pixel decoder',
    ),
    (r'^(in_blocks|model)\.', 'the file: it is a generator'),
  )

  def rows(self, ours):
    pixel = {
      path: shape
      for path, shape in ours.items()
      if path.startswith('pixel_dec/')
    }
    table = [
      Row('codebook', 'quantize.embedding.weight'),
      Row('pixel_codebook', 'pixel_quantize.embedding.weight'),
      Row('enc/latents', 'latent_tokens'),
      *_vit(ours, 'enc', 'encoder'),
      Row('enc/patches/kernel', 'encoder.patch_embed.weight', Conv()),
      Row('enc/patches/bias', 'encoder.patch_embed.bias'),
      *_pointwise('enc/out', 'encoder.conv_out'),
      *_vit(ours, 'dec', 'decoder'),
      Row('dec/mask', 'decoder.mask_token', Same(before=1)),
      *dense('dec/embed', 'decoder.decoder_embed'),
      *_pointwise('dec/ffn_in', 'decoder.ffn.0'),
      *_pointwise('dec/ffn_out', 'decoder.ffn.2'),
      *_pointwise('dec/pixels', 'decoder.ffn.0'),
      Row('dec/conv_out/kernel', 'decoder.conv_out.weight', Conv()),
      Row('dec/conv_out/bias', 'decoder.conv_out.bias'),
      *autoencoder.rows(pixel, _pixel_name),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    return False


def _pixel_name(name):
  return autoencoder.maskgit(name).replace('pixel_dec.', 'pixel_decoder.')


def _pointwise(path, key):
  """Rows of a linear map that is a 1 x 1 convolution there."""
  yield Row(f'{path}/kernel', f'{key}.weight', Linear(after=2))
  yield Row(f'{path}/bias', f'{key}.bias')


def _vit(ours, path, key):
  block, theirs = f'{path}/stack/layers/block', f'{key}.transformer.{{i}}'
  attention = f'{block}/attention'
  yield Row(f'{path}/class_embedding', f'{key}.class_embedding')
  yield Row(f'{path}/position', f'{key}.positional_embedding')
  yield Row(
    f'{path}/latent_position', f'{key}.latent_token_positional_embedding'
  )
  yield from norm(f'{path}/norm_pre', f'{key}.ln_pre')
  yield from norm(f'{path}/norm_post', f'{key}.ln_post')
  yield from norm(f'{block}/norm1', f'{theirs}.ln_1')
  yield from norm(f'{block}/norm2', f'{theirs}.ln_2')
  yield Row(
    f'{attention}/qkv/kernel', f'{theirs}.attn.in_proj_weight', Linear()
  )
  yield from in_thirds(ours, attention, f'{theirs}.attn.in_proj_bias')
  yield from dense(f'{attention}/out', f'{theirs}.attn.out_proj', inputs=2)
  yield from dense(f'{block}/mlp/fc1', f'{theirs}.mlp.c_fc')
  yield from dense(f'{block}/mlp/fc2', f'{theirs}.mlp.c_proj')
