"""The released weights of LlamaGen: its transformer and its tokenizers.

Source: FoundationVision/LlamaGen, autoregressive/models/gpt.py and
tokenizer/tokenizer_image/vq_model.py.
"""

from collections.abc import Iterator

import numpy as np

from arvision.importers import autoencoder
from arvision.importers.table import Grids, Linear, Row, Weights, dense

# Length of the official meter of codebook usage.
_METER = 65536


def blocks(stack: str, first: int = 0) -> Iterator[Row]:
  """Rows of a stack whose first layer is number `first` of the release."""
  block = f'{stack}/layers/block'
  for path, key, inputs in (
    ('attention/qkv', 'attention.wqkv', 1),
    ('attention/out', 'attention.wo', 2),
    ('mlp/w1', 'feed_forward.w1', 1),
    ('mlp/w2', 'feed_forward.w2', 1),
    ('mlp/w3', 'feed_forward.w3', 1),
  ):
    yield Row(
      f'{block}/{path}/kernel',
      f'layers.{{i}}.{key}.weight',
      Linear(inputs),
      first=first,
    )
  for path, key in (('norm1', 'attention_norm'), ('norm2', 'ffn_norm')):
    yield Row(
      f'{block}/{path}/scale', f'layers.{{i}}.{key}.weight', first=first
    )


class Transformer:
  """`c2i_B_256.pt`, `t2i_XL_stage1_256.pt` and their like."""

  name = 'LlamaGen transformer'
  wrapping = 'model'
  hints = (
    (r'^layers\.\d+\.feed_forward', 'config.backbone.block.mlp.hidden'),
    (r'^layers\.', 'config.backbone.depth, width and heads'),
    (r'^cls_embedding\.embedding_table', 'config.condition.classes'),
    (
      r'^cls_embedding\.(cap_proj|uncond)',
      'config.condition: it reads captions',
    ),
    (r'^(tok_embeddings|output)\.', 'config.head.vocab_size'),
  )

  def rows(self, ours):
    table = [
      Row('condition/label/table', 'cls_embedding.embedding_table.weight'),
      Row('condition/null_fixed', 'cls_embedding.uncond_embedding'),
      *dense('condition/fc1', 'cls_embedding.cap_proj.fc1', bias=False),
      *dense('condition/fc2', 'cls_embedding.cap_proj.fc2', bias=False),
      Row('backbone/input/codes/table', 'tok_embeddings.weight'),
      *blocks('backbone/stack'),
      Row('backbone/norm/scale', 'norm.weight'),
      *dense('head/linear', 'output', bias=False),
    ]
    return [row for row in table if row.path in ours]

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
    (
      r'^quantize\.embedding',
      'config.tokenizer.quantizer: vocab_size and channels',
    ),
    (
      r'conv_blocks',
      'config.tokenizer.encoder and decoder: ch_mult, res_blocks',
    ),
    (r'conv_(in|out)', 'config.tokenizer.encoder and decoder: ch, channels'),
  )

  def rows(self, ours):
    levels = autoencoder.levels(ours)
    return [
      Row('quant/codebook', 'quantize.embedding.weight'),
      *autoencoder.rows(ours, lambda name: autoencoder.llamagen(name, levels)),
    ]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {'quantize.codebook_used': np.zeros(_METER, np.float32)}

  def derived(self, key: str) -> bool:
    return key == 'quantize.codebook_used'
