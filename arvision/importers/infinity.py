"""The released weights of Infinity: its transformer and its tokenizers.

Source: FoundationVision/Infinity, models/infinity.py and
models/bsq_vae/flux_vqgan.py.
"""

import dataclasses
import re

import numpy as np

from arvision.errors import ConfigError
from arvision.importers import autoencoder
from arvision.importers.table import (
  Grids,
  Identity,
  Linear,
  Row,
  Weights,
  dense,
  norm,
)
from arvision.ranges import Few

_BLOCK = 'backbone/stack/layers/block'
_POOL = 'text_proj_for_sos.ca'


@dataclasses.dataclass(frozen=True)
class _Chunked(Row):
  """A row of a stack whose layers are numbered within chunks.

  Attributes:
    chunks: how many chunks.
  """

  chunks: int = 1

  def _keys(self, ours):
    size, rest = divmod(ours[0], self.chunks)
    if rest:
      raise ConfigError(
        f'config.release.chunks={self.chunks} does not divide the '
        f'{ours[0]} layers of config.backbone.depth'
      )

    def chunked(match):
      chunk, module = divmod(int(match[1]), size)
      return f'block_chunks.{chunk}.module.{module}.'

    return [
      [re.sub(r'^blocks\.(\d+)\.', chunked, key) for key in keys]
      for keys in super()._keys(ours)
    ]


@dataclasses.dataclass(frozen=True)
class Transformer:
  """`infinity_2b_reg.pth` and its like.

  Attributes:
    chunks: in how many chunks the release has its layers; they divide the depth.
    flash: whether the scales of the heads have the shape that the authors' own
      kernel of flash attention wants, (1, 1, heads, 1).
  """

  chunks: Few = 1
  flash: bool = False

  name = 'Infinity transformer'
  wrapping = ''
  hints: tuple[tuple[str, str], ...] = (
    (r'scale_mul', 'config.release.flash'),
    (r'shared_ada_lin|ada_gss|ada_lin', 'config.backbone.shared_adaln'),
    (r'head_nm|head\.0', 'config.backbone.last_norm, config.head.type'),
    (
      r'^block(_chunk)?s\.',
      'config.backbone.depth, width and heads; config.release.chunks',
    ),
    (r'^(text_|cfg_uncond)', 'config.condition: length, channels, heads'),
    (
      r'^(norm0_ve|word_embed|head\.)',
      'config.tokenizer.quantizer: channels, ids; config.backbone.input; '
      'config.head',
    ),
    (r'^lvl_embed', 'config.backbone.position.rows'),
  )

  def rows(self, ours):
    flat = Identity(flat=True)
    table = [
      Row('condition/null', 'cfg_uncond'),
      Row('condition/start', 'pos_start', Identity(before=1)),
      Row('condition/norm/scale', 'text_norm.weight'),
      Row('condition/pool/query', f'{_POOL}.mat_q', Identity(before=1)),
      Row('condition/pool/v_bias', f'{_POOL}.v_bias', flat),
      *dense('condition/pool/kv', f'{_POOL}.mat_kv', bias=False),
      *dense('condition/pool/out', f'{_POOL}.proj', inputs=2),
      *dense('condition/fc1', 'text_proj_for_ca.0'),
      *dense('condition/fc2', 'text_proj_for_ca.2'),
      Row('backbone/position/entity', 'lvl_embed.weight'),
      *norm('backbone/input/norm', 'norm0_ve'),
      *dense('backbone/input/linear', 'word_embed'),
      *dense('backbone/shared_adaln/linear', 'shared_ada_lin.1'),
      *dense('backbone/norm/adaln', 'head_nm.ada_lin.1'),
      *norm('backbone/norm', 'head.0'),
      *dense('head/hidden', _head(ours)),
      *dense('head/linear', _head(ours, last=True)),
      *map(self._of_block, _block_rows(self.flash)),
    ]
    return [row for row in table if row.path in ours]

  def _of_block(self, row):
    if self.chunks == 1:
      return row
    return _Chunked(row.path, row.key, row.form, chunks=self.chunks)

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    zeros = {
      key.replace('v_bias', 'zero_k_bias'): np.zeros_like(weights[key])
      for key in weights
      if re.search(r'(sa|ca)\.v_bias$', key)
    }
    # RMS norms without a scale have one that is not trained.
    ones = {
      key.replace('ca_norm', 'ln_wo_grad'): np.ones_like(weights[key])
      for key in weights
      if key.endswith('ca_norm.weight')
      and key.replace('weight', 'bias') not in weights
    }
    if ones and 'head_nm.ada_lin.1.bias' in weights:
      ones['head_nm.ln_wo_grad.weight'] = next(iter(ones.values()))
    return {**zeros, **ones}

  def derived(self, key: str) -> bool:
    return key.endswith(('.zero_k_bias', '.ln_wo_grad.weight'))


def _head(ours, last=False):
  """The key of the first or last linear map of the head.

  The maps and a norm that is not modulated are numbered, unless there is one map
  alone.
  """
  deep = 'head/hidden/kernel' in ours
  normed = 'backbone/norm/adaln/kernel' not in ours
  return f'head.{normed + 2 * (deep and last)}' if deep or normed else 'head'


def _block_rows(flash):
  scale = Identity(before=2, after=1) if flash else Identity(before=1, after=2)
  attention, cross = f'{_BLOCK}/attention', f'{_BLOCK}/cross'
  flat = Identity(flat=True)
  yield Row(f'{_BLOCK}/adaln/offset', 'blocks.{i}.ada_gss', Identity(before=2))
  yield from dense(f'{_BLOCK}/adaln/linear', 'blocks.{i}.ada_lin.1')
  yield Row(f'{attention}/qkv/kernel', 'blocks.{i}.sa.mat_qkv.weight', Linear())
  for name in 'qv':
    yield Row(f'{attention}/{name}_bias', f'blocks.{{i}}.sa.{name}_bias', flat)
  yield Row(
    f'{attention}/logits/log_scale',
    'blocks.{i}.sa.scale_mul_1H11',
    scale,
  )
  yield from dense(f'{attention}/out', 'blocks.{i}.sa.proj', inputs=2)
  yield Row(f'{cross}/q/kernel', 'blocks.{i}.ca.mat_q.weight', Linear())
  yield Row(f'{cross}/q_bias', 'blocks.{i}.ca.mat_q.bias', flat)
  yield Row(f'{cross}/kv/kernel', 'blocks.{i}.ca.mat_kv.weight', Linear())
  yield Row(f'{cross}/v_bias', 'blocks.{i}.ca.v_bias', flat)
  yield from dense(f'{cross}/out', 'blocks.{i}.ca.proj', inputs=2)
  yield Row(f'{cross}/gamma', 'blocks.{i}.ca_gamma')
  yield from norm(f'{_BLOCK}/cross_norm', 'blocks.{i}.ca_norm')
  yield from dense(f'{_BLOCK}/mlp/fc1', 'blocks.{i}.ffn.fc1')
  yield from dense(f'{_BLOCK}/mlp/fc2', 'blocks.{i}.ffn.fc2')
  for ours, theirs in (('w1', 'fcg'), ('w3', 'fc1'), ('w2', 'fc2')):
    yield Row(
      f'{_BLOCK}/mlp/{ours}/kernel',
      f'blocks.{{i}}.ffn.{theirs}.weight',
      Linear(),
    )


class Tokenizer:
  """`infinity_vae_d32.pth` and its like."""

  name = 'Infinity tokenizer'
  wrapping = 'vae'
  hints: tuple[tuple[str, str], ...] = (
    (
      r'(down|up)\.\d',
      'config.tokenizer.encoder and decoder: ch, ch_mult, res_blocks',
    ),
    (r'conv_(in|out)', 'config.tokenizer.quantizer.channels'),
  )

  def rows(self, ours):
    # Every layer lies in a wrapper, 'conv' or 'norm'.
    def rename(name):
      kind = 'norm' if re.search(r'norm\w*$', name) else 'conv'
      return f'{autoencoder.ldm(name)}.{kind}'

    return list(autoencoder.rows(ours, rename))

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    bits = len(weights['encoder.conv_out.conv.weight'])
    mask = np.left_shift(np.int64(1), np.arange(bits)[::-1])
    # The quantiser has two names.
    return {f'{name}.lfq.mask': mask for name in ('quantizer', 'quantize')}

  def derived(self, key: str) -> bool:
    return bool(re.match(r'quantizer?\.', key))
