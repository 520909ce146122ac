"""The released weights of FlowAR.

Source: OliverRensu/FlowAR, models/flowar.py.
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

# What a head of the official flow head has, whatever its width.
_FLOW_HEAD = 64


@dataclasses.dataclass(frozen=True)
class Transformer:
  """`FlowAR-S.pth` and its like: both kinds of flow head.

  Attributes:
    heads: of the transformer over scales. Official files hold the frequencies
      of its rotations, and nothing else in them tells their number.
    second_heads: of its second half; None: the same.
  """

  heads: int = 12
  second_heads: int | None = None

  name = 'FlowAR'
  wrapping = ''
  hints = (
    (
      r'^flownet\.res_blocks\.\d+\.(crossattn|norm2|ada_lin)',
      'config.head.block: adaln and cross',
    ),
    (r'^flownet\.', 'config.head: depth, width, channels, block.mlp.hidden'),
    (r'mlp\.', 'config.backbone.block.mlp.hidden'),
    (r'^encoder_blocks\.', 'config.backbone.depth and width'),
    (r'^decoder_blocks\.', 'config.backbone.body.depth and body.width'),
    (r'^class_emb', 'config.condition.classes'),
    (r'pos_embed_learned', 'config.layout.scales'),
  )

  def rows(self, ours):
    table = [
      Row('condition/label/table', 'class_emb.weight'),
      *dense('backbone/input/linear', 'z_proj'),
      Row('backbone/embedding_norm/scale', 'z_proj_ln.weight'),
      *_positions('position', 'encoder'),
      *_half(ours, 'stack', 'encoder_blocks.{i}'),
      Row('backbone/norm_first/scale', 'encoder_norm.weight'),
      *dense('backbone/between', 'decoder_embed'),
      *_positions('position_second', 'decoder'),
      *_half(ours, 'stack_second', 'decoder_blocks.{i}'),
      Row('backbone/norm/scale', 'decoder_norm.weight'),
      *_positions('position_out', 'diffusion'),
      *dense('head/input', 'flownet.input_proj'),
      *dense('head/cond', 'flownet.cond_embed'),
      *dense('head/level/fc1', 'flownet.time_embed.mlp.0'),
      *dense('head/level/fc2', 'flownet.time_embed.mlp.2'),
      *_flow('head/stack/layers/block', 'flownet.res_blocks.{i}'),
      *dense('head/last_adaln', 'flownet.final_layer.adaLN_modulation.1'),
      *dense('head/linear', 'flownet.final_layer.linear'),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    areas = [height * width for height, width in grids]
    scale = np.repeat(np.arange(len(areas)), areas)
    hidden = np.where(scale[:, None] >= scale, 0, -np.inf)
    heads = {
      'encoder_blocks': self.heads,
      'decoder_blocks': self.second_heads or self.heads,
    }

    def head(key):
      n = heads.get(key.partition('.')[0])
      return len(weights[key]) // n if n else _FLOW_HEAD

    frequencies = {
      f'{key.removesuffix(".proj.weight")}.rope.freqs': _frequencies(head(key))
      for key in weights
      if key.endswith('attn.proj.weight')
    }
    return {'mask': hidden[None, None].astype(np.float32), **frequencies}

  def derived(self, key: str) -> bool:
    return key == 'mask' or key.endswith('.rope.freqs')


def _frequencies(head):
  """Of one axis: half of a head, one for every pair."""
  half = head // 2
  powers = np.arange(0, half, 2, dtype=np.float32) / half
  return (1 / 10000**powers).astype(np.float32)


def _positions(name, theirs):
  yield Row(
    f'backbone/{name}/slot', f'{theirs}_pos_embed_learned', Identity(before=1)
  )


def _half(ours, stack, theirs):
  """Rows of the blocks of the transformer over scales."""
  path = f'backbone/{stack}/layers/block'
  yield from _common(path, theirs)
  yield from in_thirds(ours, f'{path}/attention', f'{theirs}.attn.qkv.bias')
  yield from dense(f'{path}/adaln/linear', f'{theirs}.ada_lin.1')


def _flow(path, theirs):
  """Rows of the blocks of either flow head."""
  yield from _common(path, theirs)
  yield from dense(f'{path}/adaln/linear', f'{theirs}.ada_lin')
  yield from dense(f'{path}/adaln/attention/linear', f'{theirs}.ada_lin_attn')
  yield from dense(f'{path}/adaln/mlp/linear', f'{theirs}.ada_lin_mlp')
  yield Row(f'{path}/cross_norm/scale', f'{theirs}.norm2_1.weight')
  yield Row(f'{path}/memory_norm/scale', f'{theirs}.norm2_2.weight')
  cross, other = f'{path}/cross', f'{theirs}.crossattn'
  yield Row(f'{cross}/q/kernel', f'{other}.q.weight', Linear())
  yield Row(f'{cross}/kv/kernel', f'{other}.kv.weight', Linear())
  yield from dense(f'{cross}/out', f'{other}.proj', inputs=2)


def _common(path, theirs):
  """Rows of self-attention and MLP."""
  attention = f'{path}/attention'
  yield Row(f'{attention}/qkv/kernel', f'{theirs}.attn.qkv.weight', Linear())
  yield from dense(f'{attention}/out', f'{theirs}.attn.proj', inputs=2)
  yield from dense(f'{path}/mlp/w1', f'{theirs}.mlp.fc1_g')
  yield from dense(f'{path}/mlp/w3', f'{theirs}.mlp.fc1_x')
  yield from dense(f'{path}/mlp/w2', f'{theirs}.mlp.fc2')
