"""The released weights of MaskBit: its tokenizers and their generators.

Source: markweberdev/maskbit, modeling/conv_vqgan.py and modeling/bert.py.
"""

import dataclasses
import re
from typing import ClassVar

import numpy as np

from arvision.importers import autoencoder
from arvision.importers.table import (
  Grids,
  Linear,
  Row,
  Weights,
  dense,
  in_thirds,
  norm,
)

_CODEBOOK = 'quantize.embedding.weight'


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """`maskbit_tokenizer_14bit.bin` and its like, and VQGAN+ with its table.

  Attributes:
    legacy: whether the decoder counts its levels from the image on, as older files
      do.
  """

  legacy: bool = False

  name = 'MaskBit tokenizer'
  wrapping = ''
  hints: ClassVar[tuple[tuple[str, str], ...]] = (
    (r'^quantize\.embedding', 'config.tokenizer.quantizer: lookup or lfq'),
    (
      r'(down|up|mid)\.',
      'config.tokenizer.encoder and decoder: ch_mult, res_blocks',
    ),
    (r'conv_(in|out)', 'config.tokenizer.encoder and decoder: ch, z_channels'),
  )

  def rows(self, ours):
    levels = 0 if self.legacy else autoencoder.levels(ours)
    rename = lambda name: _renamed(name, levels)
    table = [
      Row('quant/codebook', _CODEBOOK),
      *autoencoder.rows(ours, rename),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    if _CODEBOOK in weights:
      return {}
    bits = _powers(weights['encoder.conv_out.weight'].shape[0])
    codes = np.arange(2 ** len(bits), dtype=np.int64)[:, None] & bits > 0
    return {
      'quantize.bits_to_indices': bits,
      'quantize.codebook': np.where(codes, 1, -1).astype(np.float32),
    }

  def derived(self, key: str) -> bool:
    return key in ('quantize.bits_to_indices', 'quantize.codebook')


def _renamed(name, levels):
  """Its decoder counts the levels in the order of execution, ours by level."""
  if levels:
    executed = lambda m: f'up_{levels - 1 - int(m[1])}_'
    name = re.sub(r'\bup_(\d+)_', executed, name)
  name = autoencoder.maskgit(name)
  name = re.sub(r'(down|up)\.(\d+)\.block\.', r'\1.\2.res_blocks.', name)
  name = name.replace('.mid.', '.mid.res_blocks.')
  return name.replace('.downsample.conv', '.down_conv')


def _powers(count):
  """The lowest bit first."""
  return 2 ** np.arange(count)


@dataclasses.dataclass(frozen=True)
class _ClassLast:
  """(1, n, d) with the row of the class last -> (n, d) with it first."""

  def shape(self, ours):
    return (1, *ours)

  def inward(self, w, ours):
    return np.roll(w[0], 1, axis=0)

  def outward(self, p):
    return np.roll(p, -1, axis=0)[None]


class Generator:
  """`maskbit_generator_14bit.bin` and its like: LFQBert."""

  name = 'MaskBit generator'
  wrapping = ''
  hints = (
    (r'^transformer', 'config.backbone: width, depth, heads, block.mlp.hidden'),
    (r'^norm_after', 'config.backbone: block.type and last_norm'),
    (r'^input_proj', 'config.tokenizer.quantizer.channels'),
    (r'^prediction_layer', 'config.head: vocab_size and parts'),
    (r'^class_emb', 'config.condition.classes'),
    (r'^pos_emb', 'config.layout'),
  )

  def rows(self, ours):
    block, layer = 'backbone/stack/layers/block', 'transformer.layers.{i}'
    attention, theirs = f'{block}/attention', f'{layer}.0.mha'
    table = [
      *dense('backbone/input/linear', 'input_proj'),
      Row('condition/label/table', 'class_emb.weight'),
      Row('backbone/position/slot', 'pos_emb', _ClassLast()),
      *norm('backbone/embedding_norm', 'first_layer.0'),
      Row(f'{attention}/qkv/kernel', f'{theirs}.in_proj_weight', Linear()),
      *in_thirds(ours, attention, f'{theirs}.in_proj_bias'),
      *dense(f'{attention}/out', f'{theirs}.out_proj', inputs=2),
      *norm(f'{block}/norm1', f'{layer}.0.norm'),
      *dense(f'{block}/mlp/fc1', f'{layer}.1.net.0'),
      *dense(f'{block}/mlp/fc2', f'{layer}.1.net.2'),
      *norm(f'{block}/norm2', f'{layer}.1.norm'),
      *norm('backbone/norm', 'norm_after_transformer'),
      *dense('head/transform', 'last_layer.0'),
      *norm('head/norm', 'last_layer.2'),
      *dense('head/linear', 'prediction_layer'),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    bits = weights['input_proj.weight'].shape[1]
    outputs = weights['prediction_layer.weight'].shape[0]
    # Parts of 2 bits and of 1 have equally many outputs; 2 are supposed.
    each = range(bits, 0, -1)
    found = (n for n in each if bits // n * 2**n == outputs and not bits % n)
    return {'bits_to_indices': _powers(next(found))}

  def derived(self, key: str) -> bool:
    return key == 'bits_to_indices'
