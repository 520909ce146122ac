"""The released weights of TiTok: its tokenizers and their generators.

Source: bytedance/1d-tokenizer, modeling/titok.py, modeling/modules/blocks.py and
modeling/maskgit.py.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from arvision.importers import autoencoder
from arvision.importers.table import (
  Conv,
  Grids,
  Identity,
  Linear,
  Row,
  Shape,
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
    (
      r'^quantize\.embedding',
      'config.tokenizer.quantizer: vocab_size and channels',
    ),
    (
      r'^pixel_|decoder\.ffn|decoder\.conv_out',
      'config.tokenizer.type: legacy models have a pixel decoder',
    ),
  )

  def rows(self, ours):
    pixel = {
      path: shape
      for path, shape in ours.items()
      if path.startswith('pixel_dec/')
    }
    table = [
      Row('quant/codebook', 'quantize.embedding.weight'),
      Row('pixel_quant/codebook', 'pixel_quantize.embedding.weight'),
      Row('enc/latents', 'latent_tokens'),
      *_vit(ours, 'enc', 'encoder'),
      Row('enc/patches/kernel', 'encoder.patch_embed.weight', Conv()),
      Row('enc/patches/bias', 'encoder.patch_embed.bias'),
      *_pointwise('enc/out', 'encoder.conv_out'),
      *_vit(ours, 'dec', 'decoder'),
      Row('dec/mask', 'decoder.mask_token', Identity(before=1)),
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


_CODES = 'backbone/input/codes/table'
_LABELS = 'condition/label/table'


class Generator:
  """`generator_titok_s128.bin` (U-ViT), `..._l32.bin` and `..._b64.bin` (BERT).

  The vector that BERT adds to all tokens is part of its positions here; an
  exported file has it there, and zeros in its own place.
  """

  name = 'TiTok generator'
  wrapping = ''
  hints = (
    (r'^(in_blocks|mid_block|out_blocks)', 'config.backbone: this is a U-ViT'),
    (r'^model\.', 'config.backbone: this is a BERT'),
    (r'embeddings\.weight', 'config.condition.classes, config.head.vocab_size'),
    (r'lm_head', 'config.head.vocab_size'),
    (r'pos_embed|position_embeddings', 'config.layout'),
  )

  def rows(self, ours):
    # One official table holds codes, a mask, classes, and no class.
    codes, labels = ours.get(_CODES, (0,))[0], ours.get(_LABELS, (0,))[0]
    is_bert = 'backbone/embedding_norm/scale' in ours
    table = 'model.embeddings.word_embeddings' if is_bert else 'embeddings'
    both = [
      Row(_CODES, f'{table}.weight', total=codes + labels),
      Row(_LABELS, f'{table}.weight', start=codes, total=codes + labels),
      *(_bert(ours) if is_bert else _uvit(ours)),
    ]
    return [row for row in both if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    if 'lm_head.weight' in weights:
      return {}
    width = weights[_PLACES].shape[1]
    return {_TYPES: np.zeros((2, width), np.float32)}

  def derived(self, key: str) -> bool:
    return key == 'model.embeddings.position_ids'


_PLACES = 'model.embeddings.position_embeddings.weight'
_TYPES = 'model.embeddings.token_type_embeddings.weight'


def _bert(ours):
  block = 'backbone/stack/layers/block'
  attention, layer = f'{block}/attention', 'model.encoder.layer.{i}'
  own = f'{layer}.attention.self.{{part}}'
  parts = ('query', 'key', 'value')
  yield Row('backbone/position/slot', _PLACES, added=_TYPES)
  yield from norm('backbone/embedding_norm', 'model.embeddings.LayerNorm')
  yield Row(f'{attention}/qkv/kernel', f'{own}.weight', Linear(), parts=parts)
  for name, part in zip('qkv', parts):
    yield Row(
      f'{attention}/{name}_bias',
      f'{layer}.attention.self.{part}.bias',
      Identity(flat=True),
    )
  yield from dense(
    f'{attention}/out', f'{layer}.attention.output.dense', inputs=2
  )
  yield from norm(f'{block}/norm1', f'{layer}.attention.output.LayerNorm')
  yield from dense(f'{block}/mlp/fc1', f'{layer}.intermediate.dense')
  yield from dense(f'{block}/mlp/fc2', f'{layer}.output.dense')
  yield from norm(f'{block}/norm2', f'{layer}.output.LayerNorm')
  yield from dense('head/linear', 'model.lm_head')


def _uvit(ours):
  yield Row('backbone/position/slot', 'pos_embed', Identity(before=1))
  yield from uvit_layers(ours)
  yield from norm('backbone/norm', 'norm')
  yield from dense('head/linear', 'lm_head')


def uvit_layers(ours: Mapping[str, Shape]) -> Iterator[Row]:
  """Rows of the three stacks of a U-ViT."""
  for stack, theirs in (
    ('stack', 'in_blocks.{i}'),
    ('stack_mid', 'mid_block{i}'),
    ('stack_out', 'out_blocks.{i}'),
  ):
    first = None if stack == 'stack_mid' else 0
    layers = f'backbone/{stack}/layers'
    block = f'{layers}/block'
    attention, qkv = f'{block}/attention', f'{theirs}.attn.qkv'
    rows = [
      *norm(f'{block}/norm1', f'{theirs}.norm1'),
      *norm(f'{block}/norm2', f'{theirs}.norm2'),
      Row(f'{attention}/qkv/kernel', f'{qkv}.weight', Linear()),
      *in_thirds(ours, attention, f'{qkv}.bias'),
      *dense(f'{attention}/out', f'{theirs}.attn.proj', inputs=2),
      *dense(f'{block}/mlp/fc1', f'{theirs}.mlp.fc1'),
      *dense(f'{block}/mlp/fc2', f'{theirs}.mlp.fc2'),
      *dense(f'{layers}/skip', f'{theirs}.skip_linear'),
    ]
    yield from (dataclasses.replace(row, first=first) for row in rows)
