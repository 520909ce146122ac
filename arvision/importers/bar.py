"""The released weights of BAR: its tokenizers and generators.

Source: amazon-far/BAR, modeling/tokenizer.py, modeling/generator.py and
modeling/mbm_head.py.
"""

import dataclasses
import re
from typing import ClassVar

import numpy as np

from arvision.importers.table import (
  Conv,
  Grids,
  Identity,
  Linear,
  Row,
  Weights,
  block,
  dense,
  in_thirds,
  norm,
)

_SIGLIP = 'encoder.siglip.'
# The same tensors under a second name.
_COPIES = (
  (f'{_SIGLIP}encoder.layers.', 'encoder.frozen_encoder.layers.'),
  (f'{_SIGLIP}post_layernorm.', 'encoder.frozen_post_layernorm.'),
)


class Tokenizer:
  """`bar_fsq_16bits.bin`, `bar_fsq_16bits_ft.bin`, `bar_sfq_10bits_res512.bin`.

  The frozen SigLIP 2 and the projection are read where the config has an
  `align`, and left out otherwise. Its pooling head is never used and is not
  kept.
  """

  name = 'BAR tokenizer'
  wrapping = ''
  hints = (
    (r'^encoder\.', 'config.tokenizer.encoder: width, depth, positions'),
    (r'^decoder\.clip_projector', 'config.tokenizer.align'),
    (r'^decoder\.', 'config.tokenizer.decoder: width, depth, grid'),
    (r'^quantize\.', 'config.tokenizer.quantizer.levels'),
  )

  def rows(self, ours):
    table = [
      # The embeddings are shared; `enc` comes last and is what is exported.
      *_siglip(ours, 'align/encoder', _SIGLIP, f'{_SIGLIP}encoder.layers'),
      *_siglip(
        ours, 'enc', 'encoder.trainable_', 'encoder.trainable_encoder.layers'
      ),
      *dense('enc/out', 'quantize.in_proj'),
      *dense('dec/embed', 'quantize.out_proj'),
      Row('dec/class_embedding', 'decoder.class_embedding'),
      Row('dec/position', 'decoder.positional_embedding'),
      *norm('dec/norm_pre', 'decoder.ln_pre'),
      *norm('dec/norm_post', 'decoder.ln_post'),
      *block(ours, 'dec/stack/layers/block', 'decoder.transformer.{i}'),
      Row('dec/pixels/kernel', 'decoder.ffn.0.weight', Linear(after=2)),
      Row('dec/pixels/bias', 'decoder.ffn.0.bias'),
      Row('dec/conv_out/kernel', 'decoder.conv_out.weight', Conv()),
      Row('dec/conv_out/bias', 'decoder.conv_out.bias'),
    ]
    for i in range(3):
      key = f'decoder.clip_projector.{2 * i}'
      table += dense(f'align/projection_{i}', key)
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {
      key.replace(own, copy): value
      for key, value in weights.items()
      for own, copy in _COPIES
      if key.startswith(own)
    }

  def derived(self, key: str) -> bool:
    # A training file has what generators leave out.
    return key.startswith(
      (
        'encoder.frozen_',
        'decoder.clip_projector.',
        *(
          f'{_SIGLIP}{name}.' for name in ('head', 'encoder', 'post_layernorm')
        ),
      )
    )


def _siglip(ours, path, key, layers):
  block, theirs = f'{path}/stack/layers/block', f'{layers}.{{i}}'
  attention, embeddings = f'{block}/attention', f'{_SIGLIP}embeddings'
  parts = ('q_proj', 'k_proj', 'v_proj')
  patches = f'{embeddings}.patch_embedding'
  yield Row(f'{path}/patches/kernel', f'{patches}.weight', Linear(3))
  yield Row(f'{path}/patches/bias', f'{patches}.bias')
  yield Row(f'{path}/position', f'{embeddings}.position_embedding.weight')
  yield from norm(f'{block}/norm1', f'{theirs}.layer_norm1')
  yield from norm(f'{block}/norm2', f'{theirs}.layer_norm2')
  yield Row(
    f'{attention}/qkv/kernel',
    f'{theirs}.self_attn.{{part}}.weight',
    Linear(),
    parts=parts,
  )
  for name, part in zip('qkv', parts):
    key_ = f'{theirs}.self_attn.{part}.bias'
    yield Row(f'{attention}/{name}_bias', key_, Identity(flat=True))
  yield from dense(f'{attention}/out', f'{theirs}.self_attn.out_proj', inputs=2)
  yield from dense(f'{block}/mlp/fc1', f'{theirs}.mlp.fc1')
  yield from dense(f'{block}/mlp/fc2', f'{theirs}.mlp.fc2')
  yield from norm(f'{path}/norm_post', f'{key}post_layernorm')


_BLOCK = 'backbone/stack/layers/block'
_LABELS = 'condition/label/table'
# Ours are gate, gate, scale, scale, shift, shift; theirs are shift, scale, gate
# of attention, then of the MLP.
_CHUNKS = (2, 5, 1, 4, 0, 3)
_ROTARY = re.compile(r'blocks\.\d+\.attn\.rope\.freqs_(cos|sin)')


@dataclasses.dataclass(frozen=True)
class Transformer:
  """`bar_b.bin`, `bar_b_patch2.bin`, `bar_b_patch4.bin`, `bar_l.bin`, ...

  Attributes:
    prefix: slots of the condition, for the rotary tables of an exported file.
  """

  prefix: int = 33

  name: ClassVar[str] = 'BAR transformer'
  wrapping: ClassVar[str] = ''
  hints: ClassVar[tuple[tuple[str, str], ...]] = (
    (r'^blocks\.\d+\.mlp', 'config.backbone.block.mlp.hidden'),
    (r'^blocks\.', 'config.backbone.depth, width and heads'),
    (r'^embeddings', 'config.condition.classes'),
    (r'^input_', 'config.backbone.input.parts'),
    (r'^lm_head', 'config.head: channels, width, depth, hidden'),
    (r'pos_embed', 'config.backbone.position.rows'),
    (r'^timesteps', 'config.condition.steps'),
  )

  def rows(self, ours):
    attention, theirs = f'{_BLOCK}/attention', 'blocks.{i}.attn'
    head, layers = 'head/stack/layers/block', 'lm_head.transformer.{i}'
    table = [
      Row(_LABELS, 'embeddings.weight'),
      Row('condition/tokens', 'cls_token', Identity(before=1)),
      Row('condition/steps', 'timesteps_embeddings', Identity(before=1)),
      Row('backbone/input/parts/table', 'input_embeddings.weight'),
      *dense('backbone/input/linear', 'input_merge'),
      Row('backbone/position/place', 'pos_embed', Identity(before=1)),
      Row(
        'backbone/position/aim', 'target_aware_pos_embed', Identity(before=1)
      ),
      Row(f'{_BLOCK}/norm1/scale', 'blocks.{i}.norm1.weight'),
      Row(f'{_BLOCK}/norm2/scale', 'blocks.{i}.norm2.weight'),
      Row(f'{attention}/qkv/kernel', f'{theirs}.qkv.weight', Linear()),
      *in_thirds(ours, attention, f'{theirs}.qkv.bias'),
      Row(f'{attention}/logits/q_norm/scale', f'{theirs}.q_norm.weight'),
      Row(f'{attention}/logits/k_norm/scale', f'{theirs}.k_norm.weight'),
      *dense(f'{attention}/out', f'{theirs}.proj', inputs=2),
      *_swiglu(ours, f'{_BLOCK}/mlp', 'blocks.{i}.mlp'),
      *dense(
        f'{_BLOCK}/adaln/linear',
        'blocks.{i}.adaLN_modulation.1',
        chunks=_CHUNKS,
      ),
      Row('backbone/norm/scale', 'norm.weight'),
      *dense('head/cond', 'latent_condition_proj'),
      Row('head/time/w_fixed', 'lm_head.t_embedder.W'),
      *dense('head/time/fc1', 'lm_head.t_embedder.mlp.0'),
      *dense('head/time/fc2', 'lm_head.t_embedder.mlp.2'),
      Row('head/parts/table', 'lm_head.input_embed.weight'),
      *dense('head/input', 'lm_head.input_proj'),
      Row('head/input_norm/scale', 'lm_head.ln_pre.weight'),
      Row(f'{head}/norm/scale', f'{layers}.in_ln.weight'),
      *_swiglu(ours, f'{head}/mlp', f'{layers}.mlp'),
      *dense(f'{head}/adaln', f'{layers}.adaLN_modulation.1'),
      Row('head/norm/scale', 'lm_head.adaln_before_head.norm_final.weight'),
      *dense('head/adaln', 'lm_head.adaln_before_head.adaLN_modulation.1'),
      *dense('head/linear', 'lm_head.output_embed'),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    """The rotary table of every block."""
    height, width = grids[-1]
    found = {}
    for key in weights:
      if key.endswith('.attn.q_norm.weight'):
        dim, where = len(weights[key]), key.removesuffix('q_norm.weight')
        for name, table in _rotary(height, width, dim, self.prefix).items():
          found[f'{where}rope.freqs_{name}'] = table
    return found

  def derived(self, key: str) -> bool:
    return _ROTARY.fullmatch(key) is not None


def _swiglu(ours, path, key):
  """Rows of two inner maps that share one official tensor, and the outer map."""
  for i, name in enumerate(('w1', 'w3')):
    for part, official, form in (
      ('kernel', 'weight', Linear()),
      ('bias', 'bias', Identity()),
    ):
      where = f'{path}/{name}/{part}'
      width = ours.get(where, (0,))[-1]
      yield Row(
        where,
        f'{key}.w12.{official}',
        form,
        start=i * width,
        total=2 * width,
      )
  yield from dense(f'{path}/w2', f'{key}.w3')


def _rotary(height, width, dim, prefix):
  """{'cos', 'sin'}: (prefix + tokens, dim) float32, every number twice."""
  frequency = 10000.0 ** (-np.arange(0, dim // 2, 2) / (dim // 2))
  places = np.divmod(np.arange(height * width), width)
  angle = np.concatenate([x[:, None] * frequency for x in places], 1)
  angle = np.repeat(angle, 2, -1)
  angle = np.concatenate([np.zeros((prefix, dim)), angle])
  return {'cos': np.float32(np.cos(angle)), 'sin': np.float32(np.sin(angle))}
