"""The released weights of Infinity: its transformer and its tokenizers.

Source: FoundationVision/Infinity, models/infinity.py and
models/bsq_vae/flux_vqgan.py.
"""

import re

import numpy as np

from arvision.importers import autoencoder
from arvision.importers.table import Grids, Weights


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
