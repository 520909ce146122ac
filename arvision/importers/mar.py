"""The released weights of MAR.

Source: LTH14/mar, models/mar.py and models/diffloss.py.
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

_BLOCKS = (('stack', 'encoder'), ('stack_second', 'decoder'))


class Transformer:
  """`checkpoint-last.pth` of mar_base, mar_large and mar_huge."""

  name = 'MAR transformer'
  wrapping = 'model_ema'
  hints: tuple[tuple[str, str], ...] = (
    (r'^diffloss\.net\.res_blocks', 'config.head.depth and width'),
    (r'^diffloss\.', 'config.head.width and config.head.channels'),
    (
      r'^(encoder|decoder)_blocks\.\d+\.mlp',
      'config.backbone.block.mlp.hidden',
    ),
    (r'^encoder_blocks\.', 'config.backbone.depth, width and heads'),
    (r'^decoder_blocks\.', 'config.backbone.body.depth and body.width'),
    (r'^class_emb', 'config.condition.classes'),
    (r'^z_proj\.', 'config.head.channels'),
    (r'pos_embed_learned', 'config.layout.prefix, height and width'),
  )

  # What is added to the hidden vectors before the head.
  out_position = 'diffusion_pos_embed_learned'
  # Of the diffusion head.
  head_path = 'head'

  def rows(self, ours):
    table = [
      Row('condition/label/table', 'class_emb.weight', last='fake_latent'),
      *dense('backbone/input/linear', 'z_proj'),
      *norm('backbone/embedding_norm', 'z_proj_ln'),
      Row('backbone/position/slot', 'encoder_pos_embed_learned', Identity(1)),
      *norm('backbone/norm_first', 'encoder_norm'),
      *dense('backbone/between', 'decoder_embed'),
      Row('backbone/hole', 'mask_token', Identity(1)),
      Row(
        'backbone/position_second/slot',
        'decoder_pos_embed_learned',
        Identity(1),
      ),
      *norm('backbone/norm', 'decoder_norm'),
      Row('backbone/position_out', self.out_position, Identity(1)),
      *self.head(ours),
    ]
    for stack, half in _BLOCKS:
      table += self._half(ours, f'backbone/{stack}/layers/block', half)
    return [row for row in table if row.path in ours]

  def head(self, ours):
    """Rows of the head."""
    own, theirs = self.head_path, 'diffloss.net'
    block = f'{own}/stack/layers/block'
    blocks = f'{theirs}.res_blocks.{{i}}'
    return [
      *dense(f'{own}/time/fc1', f'{theirs}.time_embed.mlp.0'),
      *dense(f'{own}/time/fc2', f'{theirs}.time_embed.mlp.2'),
      *dense(f'{own}/cond', f'{theirs}.cond_embed'),
      *dense(f'{own}/input', f'{theirs}.input_proj'),
      *dense(f'{own}/adaln', f'{theirs}.final_layer.adaLN_modulation.1'),
      *dense(f'{own}/linear', f'{theirs}.final_layer.linear'),
      *norm(f'{block}/norm', f'{blocks}.in_ln'),
      *dense(f'{block}/adaln', f'{blocks}.adaLN_modulation.1'),
      *dense(f'{block}/fc1', f'{blocks}.mlp.0'),
      *dense(f'{block}/fc2', f'{blocks}.mlp.2'),
    ]

  def _half(self, ours, block, half):
    theirs = f'{half}_blocks.{{i}}'
    attention = f'{block}/attention'
    qkv = f'{theirs}.attn.qkv'
    return [
      *norm(f'{block}/norm1', f'{theirs}.norm1'),
      *norm(f'{block}/norm2', f'{theirs}.norm2'),
      Row(f'{attention}/qkv/kernel', f'{qkv}.weight', Linear()),
      *in_thirds(ours, attention, f'{qkv}.bias'),
      *dense(f'{attention}/out', f'{theirs}.attn.proj', inputs=2),
      *dense(f'{block}/mlp/fc1', f'{theirs}.mlp.fc1'),
      *dense(f'{block}/mlp/fc2', f'{theirs}.mlp.fc2'),
    ]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    return False
