"""The released weights of TokenBridge.

Source: YuqingWang1029/TokenBridge, models/tokenbridge.py.
"""

import dataclasses

import numpy as np

from arvision.importers import mar
from arvision.importers.table import (
  Grids,
  Identity,
  Linear,
  Row,
  Weights,
  dense,
  in_thirds,
  norm,
)
from arvision.process.quantiles import boundaries, centres

_BLOCK = 'head/stack/layers/block'
# Ours are gate, gate, scale, scale, shift, shift; theirs are shift, scale, gate
# of attention, then of the MLP.
_CHUNKS = (2, 5, 1, 4, 0, 3)
_DERIVED = ('reconstruction_values', 'boundaries', 'channel_mask')


@dataclasses.dataclass(frozen=True)
class Transformer(mar.Transformer):
  """`checkpoint-last.pth` of the large and the huge model.

  Attributes:
    span: of the tokenizer, which the file has the levels of.
  """

  span: float = 3.0

  name = 'TokenBridge transformer'
  hints = (
    (r'^channel_blocks\.\d+\.mlp', 'config.head.hidden'),
    (r'^channel_blocks\.', 'config.head.depth and width'),
    (r'^(token_embeddings|channel_heads)\.', 'config.head.levels and order'),
    (r'^(condition_proj|channel_)', 'config.head.width'),
    *mar.Transformer.hints,
  )
  out_position = 'output_pos_embed'

  def head(self, ours):
    attention, theirs = f'{_BLOCK}/attention', 'channel_blocks.{i}'
    qkv = f'{theirs}.attn.qkv'
    return [
      *dense('head/cond', 'condition_proj'),
      Row('head/tables', 'token_embeddings.{i}.weight'),
      Row('head/position', 'channel_embed', Identity(1)),
      Row('head/slot', 'timesteps_embeddings', Identity(1)),
      *norm(f'{_BLOCK}/norm1', f'{theirs}.norm1'),
      *norm(f'{_BLOCK}/norm2', f'{theirs}.norm2'),
      Row(f'{attention}/qkv/kernel', f'{qkv}.weight', Linear()),
      *in_thirds(ours, attention, f'{qkv}.bias'),
      *norm(f'{attention}/logits/q_norm', f'{theirs}.attn.q_norm'),
      *norm(f'{attention}/logits/k_norm', f'{theirs}.attn.k_norm'),
      *dense(f'{attention}/out', f'{theirs}.attn.proj', inputs=2),
      *dense(f'{_BLOCK}/mlp/fc1', f'{theirs}.mlp.fc1'),
      *dense(f'{_BLOCK}/mlp/fc2', f'{theirs}.mlp.fc2'),
      *dense(
        f'{_BLOCK}/adaln/linear',
        f'{theirs}.adaLN_modulation.1',
        chunks=_CHUNKS,
      ),
      *norm('head/norm', 'channel_norm'),
      *dense('head/adaln', 'channel_final.adaLN_modulation.1'),
      Row('head/kernel', 'channel_heads.{i}.weight', Linear()),
      Row('head/bias', 'channel_heads.{i}.bias'),
    ]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    levels = len(weights['channel_heads.0.weight'])
    channels = weights['channel_embed'].shape[1]
    after = np.triu(np.ones((channels, channels), bool), 1)
    return {
      'boundaries': boundaries(levels, self.span).astype(np.float32),
      'reconstruction_values': centres(levels, self.span).astype(np.float32),
      'channel_mask': np.where(after, -np.inf, 0).astype(np.float32),
    }

  def derived(self, key: str) -> bool:
    return key in _DERIVED
