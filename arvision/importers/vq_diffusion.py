"""The released weights of VQ-Diffusion.

Source: microsoft/VQ-Diffusion, modeling/transformers.
"""

import dataclasses
import re
from typing import ClassVar, Literal

import numpy as np

from arvision.importers.table import (
  Conv,
  Grids,
  Identity,
  Linear,
  Row,
  Weights,
  dense,
  norm,
)
from arvision.process.transitions import MaskAndReplace
from arvision.ranges import Count

_TABLES = (
  *('log_at', 'log_bt', 'log_ct', 'log_cumprod_at', 'log_cumprod_bt'),
  *('log_cumprod_ct', 'log_1_min_ct', 'log_1_min_cumprod_ct'),
  *('Lt_history', 'Lt_count'),
)


@dataclasses.dataclass(frozen=True)
class Transformer:
  """`imagenet_pretrained.pth`, `coco_learnable.pth` and their like.

  Attributes:
    steps: times of the diffusion, for the tables that export writes.
    positions: 'embedding', or 'parameter' where positions are no embeddings (the
      published pos_emb_type).
  """

  steps: Count = 100
  positions: Literal['embedding', 'parameter'] = 'embedding'

  name: ClassVar[str] = 'VQ-Diffusion transformer'
  wrapping: ClassVar[str] = 'model.transformer.'
  hints: ClassVar[tuple[tuple[str, str], ...]] = (
    (
      r'^transformer\.content_emb\.(height|width)_emb',
      'config.backbone.position: rows and columns',
    ),
    (r'^transformer\.(content_emb|to_logits)', 'config.head.vocab_size'),
    (
      r'^transformer\.blocks\.\d+\.ln',
      'config.backbone.block: norm, cross_norm, mlp_norm, their count',
    ),
    (r'^transformer\.blocks', 'config.backbone: depth, width, block.mlp'),
    (r'^empty_text_embed', 'config.condition.type'),
  )

  def rows(self, ours):
    block, layer = 'backbone/stack/layers/block', 'transformer.blocks.{i}'
    content, last = 'transformer.content_emb', 'transformer.to_logits'
    cross = f'{block}/cross/q/kernel' in ours
    attention = f'{layer}.attn{"1" if cross else ""}'
    parts = ('query', 'key', 'value')
    flat = Identity(flat=True)
    place, ending = Identity(), '.weight'
    if self.positions == 'parameter':
      place, ending = Identity(before=1), ''
    table = [
      Row('condition/null', 'empty_text_embed'),
      Row('backbone/input/codes/table', f'{content}.emb.weight'),
      Row('backbone/position/rows', f'{content}.height_emb{ending}', place),
      Row('backbone/position/columns', f'{content}.width_emb{ending}', place),
      Row(
        f'{block}/attention/qkv/kernel',
        f'{attention}.{{part}}.weight',
        Linear(),
        parts=parts,
      ),
      *(
        Row(f'{block}/attention/{p[0]}_bias', f'{attention}.{p}.bias', flat)
        for p in parts
      ),
      *dense(f'{block}/attention/out', f'{attention}.proj', inputs=2),
      Row(f'{block}/cross/q/kernel', f'{layer}.attn2.query.weight', Linear()),
      Row(
        f'{block}/cross/kv/kernel',
        f'{layer}.attn2.{{part}}.weight',
        Linear(),
        parts=parts[1:],
      ),
      *(
        Row(f'{block}/cross/{p[0]}_bias', f'{layer}.attn2.{p}.bias', flat)
        for p in parts
      ),
      *dense(f'{block}/cross/out', f'{layer}.attn2.proj', inputs=2),
      *_norm(f'{block}/norm1', f'{layer}.ln1'),
      *_norm(f'{block}/cross_norm', f'{layer}.ln1_1'),
      *_norm(f'{block}/norm2', f'{layer}.ln2'),
      *_conv(f'{block}/mlp/conv1', f'{layer}.mlp.conv1'),
      *_conv(f'{block}/mlp/conv2', f'{layer}.mlp.conv2'),
      *dense(f'{block}/mlp/fc1', f'{layer}.mlp.0'),
      *dense(f'{block}/mlp/fc2', f'{layer}.mlp.2'),
      *norm('backbone/norm', f'{last}.0'),
      *dense('head/linear', f'{last}.1'),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    size = weights['transformer.to_logits.1.weight'].shape[0]
    process = MaskAndReplace(vocab_size=size, steps=self.steps)
    once = [table[1:] for table in process.single]
    # The entry of the data is the last one, reached as -1.
    whole = [np.roll(table, -1) for table in process.whole]
    tables = *once, *whole, 1 - once[2], 1 - whole[2]
    zeros = np.zeros(self.steps, np.float32)
    with np.errstate(divide='ignore'):
      logs = [np.float32(np.log(table)) for table in tables]
    found = dict(zip(_TABLES, [*logs, zeros, zeros]))
    tokens = int(sum(height * width for height, width in grids))
    triangle = np.tril(np.ones((1, 1, tokens, tokens), np.float32))
    keys = [k for k in weights if k.endswith('.attn2.query.weight')]
    masks = {k.replace('query.weight', 'mask'): triangle for k in keys}
    return found | masks

  def derived(self, key: str) -> bool:
    if key in _TABLES or re.search(r'\.attn2\.mask$', key):
      return True
    # CLIP's encoder of captions lies beside the transformer.
    return key.startswith('condition_emb.')


def _norm(path, key):
  """A norm that embeds a number, or one with scale and bias."""
  yield Row(f'{path}/table', f'{key}.emb.weight')
  yield from dense(f'{path}/linear', f'{key}.linear')
  yield from norm(path, key)


def _conv(path, key):
  yield Row(f'{path}/kernel', f'{key}.weight', Conv())
  yield Row(f'{path}/bias', f'{key}.bias')
