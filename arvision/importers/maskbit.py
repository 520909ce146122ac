"""The released weights of MaskBit: its tokenizers and their generators.

Source: markweberdev/maskbit, modeling/conv_vqgan.py and modeling/bert.py.
"""

import re

import numpy as np

from arvision.importers import autoencoder
from arvision.importers.table import Grids, Row, Weights

_CODEBOOK = 'quantize.embedding.weight'


class Tokenizer:
  """`maskbit_tokenizer_14bit.bin` and its like, and VQGAN+ with its table."""

  name = 'MaskBit tokenizer'
  wrapping = ''
  hints = (
    (r'^quantize\.embedding', 'config.tokenizer.quantizer: lookup or lfq'),
    (
      r'(down|up|mid)\.',
      'config.tokenizer.encoder and decoder: ch_mult, res_blocks',
    ),
    (r'conv_(in|out)', 'config.tokenizer.encoder and decoder: ch, z_channels'),
  )

  def rows(self, ours):
    levels = autoencoder.levels(ours)
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
  name = re.sub(r'\bup_(\d+)_', lambda m: f'up_{levels - 1 - int(m[1])}_', name)
  name = autoencoder.maskgit(name)
  name = re.sub(r'(down|up)\.(\d+)\.block\.', r'\1.\2.res_blocks.', name)
  name = name.replace('.mid.', '.mid.res_blocks.')
  return name.replace('.downsample.conv', '.down_conv')


def _powers(count):
  """The lowest bit first."""
  return 2 ** np.arange(count)
