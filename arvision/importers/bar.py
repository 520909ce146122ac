"""The released weights of BAR: its tokenizers and generators.

Source: amazon-far/BAR, modeling/tokenizer.py, modeling/generator.py and
modeling/mbm_head.py.
"""

from arvision.importers.table import (
  Conv,
  Grids,
  Identity,
  Linear,
  Row,
  Weights,
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
      *_decoder(ours),
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


def _decoder(ours):
  block, theirs = 'dec/stack/layers/block', 'decoder.transformer.{i}'
  attention = f'{block}/attention'
  yield from norm(f'{block}/norm1', f'{theirs}.norm1')
  yield from norm(f'{block}/norm2', f'{theirs}.norm2')
  yield Row(f'{attention}/qkv/kernel', f'{theirs}.attn.qkv.weight', Linear())
  yield from in_thirds(ours, attention, f'{theirs}.attn.qkv.bias')
  yield from dense(f'{attention}/out', f'{theirs}.attn.proj', inputs=2)
  yield from dense(f'{block}/mlp/fc1', f'{theirs}.mlp.fc1')
  yield from dense(f'{block}/mlp/fc2', f'{theirs}.mlp.fc2')
