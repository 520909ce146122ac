"""The released weights of LlamaGen: its transformer and its tokenizers.

Source: FoundationVision/LlamaGen, autoregressive/models/gpt.py and
tokenizer/tokenizer_image/vq_model.py.
"""

import numpy as np

from arvision.importers import autoencoder
from arvision.importers.table import Grids, Linear, Row, Weights, dense

_BLOCK = 'backbone/stack/layers/block'
# Length of the official meter of codebook usage.
_METER = 65536


class Transformer:
  """`c2i_B_256.pt` and its like."""

  name = 'LlamaGen transformer'
  wrapping = 'model'
  hints = (
    (r'^layers\.\d+\.feed_forward', 'config.backbone.mlp.hidden'),
    (r'^layers\.', 'config.backbone.depth, width and heads'),
    (r'^cls_embedding\.embedding_table', 'config.condition.classes'),
    (
      r'^cls_embedding\.(cap_proj|uncond)',
      'config.condition: it takes captions',
    ),
    (r'^(tok_embeddings|output)\.', 'config.head.vocab_size'),
    (r'^(encoder|decoder|quantize)\.', 'the file: it is a tokenizer'),
  )

  def rows(self, paths):
    attention = f'{_BLOCK}/attention'
    table = [
      Row('condition/label/table', 'cls_embedding.embedding_table.weight'),
      Row('backbone/input/codes/table', 'tok_embeddings.weight'),
      Row(f'{_BLOCK}/norm1/scale', 'layers.{i}.attention_norm.weight'),
      Row(
        f'{attention}/qkv/kernel', 'layers.{i}.attention.wqkv.weight', Linear()
      ),
      Row(
        f'{attention}/out/kernel',
        'layers.{i}.attention.wo.weight',
        Linear(inputs=2),
      ),
      Row(f'{_BLOCK}/norm2/scale', 'layers.{i}.ffn_norm.weight'),
      *(
        row
        for name in ('w1', 'w2', 'w3')
        for row in dense(
          f'{_BLOCK}/mlp/{name}',
          f'layers.{{i}}.feed_forward.{name}',
          bias=False,
        )
      ),
      Row('backbone/norm/scale', 'norm.weight'),
      *dense('head/linear', 'output', bias=False),
    ]
    return [row for row in table if row.path in paths]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    # Older files hold the rotary table and the mask.
    return key in ('freqs_cis', 'causal_mask')


class Tokenizer:
  """`vq_ds16_c2i.pt` and its like."""

  name = 'LlamaGen tokenizer'
  wrapping = 'model'
  hints = (
    (r'^quantize\.embedding', 'config.tokenizer.vocab_size and channels'),
    (
      r'conv_blocks',
      'config.tokenizer.encoder and decoder: ch_mult, res_blocks',
    ),
    (r'conv_(in|out)', 'config.tokenizer.encoder and decoder: ch, channels'),
    (r'^layers\.', 'the file: it is a transformer'),
  )

  def rows(self, paths):
    levels = autoencoder.levels(paths)
    return [
      Row('codebook', 'quantize.embedding.weight'),
      *autoencoder.rows(paths, lambda name: autoencoder.llamagen(name, levels)),
    ]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {'quantize.codebook_used': np.zeros(_METER, np.float32)}

  def derived(self, key: str) -> bool:
    return key == 'quantize.codebook_used'
