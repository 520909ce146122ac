"""The released weights of RAR.

Source: bytedance/1d-tokenizer, modeling/rar.py.
"""

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

_BLOCK = 'backbone/stack/layers/block'
_CODES = 'backbone/input/codes/table'
_LABELS = 'condition/label/table'
# Ours are gate, gate, scale, scale, shift, shift; theirs are shift, scale, gate
# of attention, then of the MLP.
_CHUNKS = (2, 5, 1, 4, 0, 3)


class Transformer:
  """`rar_b.bin` and its like."""

  name = 'RAR transformer'
  wrapping = ''
  hints = (
    (r'^blocks\.\d+\.mlp', 'config.backbone.block.mlp.hidden'),
    (r'^blocks\.', 'config.backbone.depth, width and heads'),
    (r'^embeddings', 'config.condition.classes and config.head.vocab_size'),
    (r'^lm_head', 'config.head.vocab_size'),
    (r'pos_embed', 'config.backbone.position.rows'),
    (r'^timesteps', 'config.condition.steps'),
  )

  def rows(self, ours):
    # One official table holds codes, a mask, classes, and no class.
    codes, labels = ours.get(_CODES, (0,))[0], ours.get(_LABELS, (0,))[0]
    total = codes + labels
    attention, theirs = f'{_BLOCK}/attention', 'blocks.{i}.attn'
    table = [
      Row(_CODES, 'embeddings.weight', total=total),
      Row(_LABELS, 'embeddings.weight', start=codes, total=total),
      Row('condition/tokens', 'cls_token', Identity(before=1)),
      Row('condition/steps', 'timesteps_embeddings', Identity(before=1)),
      Row('backbone/position/place', 'pos_embed', Identity(before=1)),
      Row(
        'backbone/position/aim', 'target_aware_pos_embed', Identity(before=1)
      ),
      *norm(f'{_BLOCK}/norm1', 'blocks.{i}.norm1'),
      *norm(f'{_BLOCK}/norm2', 'blocks.{i}.norm2'),
      Row(f'{attention}/qkv/kernel', f'{theirs}.qkv.weight', Linear()),
      *in_thirds(ours, attention, f'{theirs}.qkv.bias'),
      *norm(f'{attention}/logits/q_norm', f'{theirs}.q_norm'),
      *norm(f'{attention}/logits/k_norm', f'{theirs}.k_norm'),
      *dense(f'{attention}/out', f'{theirs}.proj', inputs=2),
      *dense(f'{_BLOCK}/mlp/fc1', 'blocks.{i}.mlp.fc1'),
      *dense(f'{_BLOCK}/mlp/fc2', 'blocks.{i}.mlp.fc2'),
      *dense(
        f'{_BLOCK}/adaln/linear',
        'blocks.{i}.adaLN_modulation.1',
        chunks=_CHUNKS,
      ),
      *dense('backbone/norm/adaln', 'adaln_before_head.adaLN_modulation.1'),
      *dense('head/linear', 'lm_head'),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    return key == 'attn_mask'
