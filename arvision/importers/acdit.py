"""The released weights of ACDiT.

Source: thunlp/ACDiT, models.py.
"""

from arvision.importers.table import (
  Grids,
  Linear,
  Row,
  Weights,
  dense,
  in_thirds,
)

_BLOCK = 'backbone/stack/layers/block'
# Ours are gate, gate, scale, scale, shift, shift; theirs are shift, scale, gate
# of attention, then of the MLP.
_CHUNKS = (2, 5, 1, 4, 0, 3)


class Transformer:
  """`ACDiT-H-img.pt` and its like; those of video have other positions."""

  name = 'ACDiT transformer'
  wrapping = 'model'
  hints = (
    (r'^blocks\.\d+\.mlp', 'config.backbone.block.mlp.hidden'),
    (r'^blocks\.', 'config.backbone.depth, width and heads'),
    (r'^y_embedder', 'config.condition.classes'),
    (r'^(x_embedder|final_layer\.linear)', 'config.head.channels'),
  )

  def rows(self, ours):
    attention, theirs = f'{_BLOCK}/attention', 'blocks.{i}.attn'
    last, last_adaln = 'final_layer', 'final_layer.adaLN_modulation.1'
    table = [
      Row('condition/label/table', 'y_embedder.embedding_table.weight'),
      *dense('condition/level/fc1', 't_embedder.mlp.0'),
      *dense('condition/level/fc2', 't_embedder.mlp.2'),
      *dense('backbone/input/linear', 'x_embedder', bias=False),
      Row(f'{_BLOCK}/norm1/scale', 'blocks.{i}.norm1.weight'),
      Row(f'{attention}/qkv/kernel', f'{theirs}.qkv.weight', Linear()),
      *in_thirds(ours, attention, f'{theirs}.qkv.bias'),
      Row(f'{attention}/logits/q_norm/scale', f'{theirs}.q_norm.weight'),
      Row(f'{attention}/logits/k_norm/scale', f'{theirs}.k_norm.weight'),
      *dense(f'{attention}/out', f'{theirs}.proj', inputs=2),
      Row(f'{_BLOCK}/norm2/scale', 'blocks.{i}.norm2.weight'),
      *dense(f'{_BLOCK}/mlp/fc1', 'blocks.{i}.mlp.fc1'),
      *dense(f'{_BLOCK}/mlp/fc2', 'blocks.{i}.mlp.fc2'),
      *dense(
        f'{_BLOCK}/adaln/linear',
        'blocks.{i}.adaLN_modulation.1',
        chunks=_CHUNKS,
      ),
      Row('backbone/norm/norm/scale', f'{last}.norm_final.weight'),
      *dense('backbone/norm/adaln', last_adaln, chunks=(1, 0)),
      *dense('head/linear', f'{last}.linear'),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    return False
