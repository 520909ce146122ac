"""The released weights of xAR.

Source: OliverRensu/xAR, models/xar.py.
"""

import dataclasses

import numpy as np

from arvision.importers.table import (
  Grids,
  Identity,
  Linear,
  Row,
  Weights,
  dense,
  in_thirds,
)

_STACKS = {'stack': 'encoder', 'stack_second': 'decoder'}


@dataclasses.dataclass(frozen=True)
class Transformer:
  """`xAR-B.pth` and its like, which predict cells, two by two of them.

  Attributes:
    heads: of the attention; the file holds a rotary table for each of its
      layers, whose width the weights do not tell.
    second_heads: of the second half; None: the same.
  """

  heads: int
  second_heads: int | None = None

  name = 'xAR transformer'
  wrapping = ''
  hints = (
    (r'_blocks\.\d+\.mlp', 'config.backbone.block.mlp.hidden'),
    (
      r'^(encoder|decoder)_blocks\.',
      'config.backbone.depth, body.depth, width and heads',
    ),
    (r'^class_emb', 'config.condition.classes'),
    (r'pos_embed_learned', 'config.layout'),
    (r'^(z_proj|pred)\.', 'config.tokenizer.quantizer.channels'),
  )

  def rows(self, ours):
    table = [
      Row('condition/label/table', 'class_emb.weight'),
      *dense('condition/level/fc1', 'time_embed.mlp.0'),
      *dense('condition/level/fc2', 'time_embed.mlp.2'),
      *dense('backbone/input/linear', 'z_proj'),
      Row('backbone/embedding_norm/scale', 'z_proj_ln.weight'),
      Row(
        'backbone/position/slot',
        'encoder_pos_embed_learned',
        Identity(before=1),
      ),
      Row('backbone/norm_first/scale', 'encoder_norm.weight'),
      *dense('backbone/between', 'decoder_embed'),
      Row(
        'backbone/position_second/slot',
        'decoder_pos_embed_learned',
        Identity(before=1),
      ),
      Row('backbone/norm/scale', 'decoder_norm.weight'),
      *dense('head/linear', 'pred'),
    ]
    for stack, half in _STACKS.items():
      block, theirs = f'backbone/{stack}/layers/block', f'{half}_blocks.{{i}}'
      attention = f'{block}/attention'
      table += [
        Row(f'{attention}/qkv/kernel', f'{theirs}.attn.qkv.weight', Linear()),
        *in_thirds(ours, attention, f'{theirs}.attn.qkv.bias'),
        *dense(f'{attention}/out', f'{theirs}.attn.proj', inputs=2),
        *dense(f'{block}/mlp/w1', f'{theirs}.mlp.fc1_g'),
        *dense(f'{block}/mlp/w3', f'{theirs}.mlp.fc1_x'),
        *dense(f'{block}/mlp/w2', f'{theirs}.mlp.fc2'),
        *dense(f'{block}/adaln/linear', f'{theirs}.ada_lin.1'),
      ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    height, width = grids[-1]
    y, x = np.divmod(np.arange(height * width), width)
    cell = 2 * (2 * y // height) + 2 * x // width
    order = np.argsort(cell, kind='stable')
    cell = cell[order]
    hidden = np.where(cell[:, None] >= cell, 0, -np.inf)
    buffers = {'mask': hidden[None, None].astype(np.float32)}
    biases = [key for key in weights if key.endswith('.attn.qkv.bias')]
    for key in biases:
      second = key.startswith('decoder') and self.second_heads
      half = len(weights[key]) // (3 * (second or self.heads)) // 2
      frequency = 10000.0 ** (-np.arange(0, half, 2) / half)
      angle = np.concatenate(
        [np.repeat(at[order, None] * frequency, 2, 1) for at in (y, x)], 1
      )
      rope = {
        'freqs': frequency,
        'freqs_cos': np.cos(angle),
        'freqs_sin': np.sin(angle),
      }
      place = key.removesuffix('qkv.bias') + 'rope'
      buffers |= {f'{place}.{k}': np.float32(v) for k, v in rope.items()}
    return buffers

  def derived(self, key: str) -> bool:
    return key == 'mask' or '.rope.' in key
