"""The released weights of MaskGIT's tokenizer, as bytedance/1d-tokenizer has it.

Source: bytedance/1d-tokenizer, modeling/modules/maskgit_vqgan.py.
"""

from arvision.importers import autoencoder
from arvision.importers.table import Grids, Row, Weights


class Tokenizer:
  """`maskgit-vqgan-imagenet-f16-256.bin`."""

  name = 'MaskGIT tokenizer'
  wrapping = ''
  hints = (
    (
      r'^quantize\.embedding',
      'config.tokenizer.quantizer: vocab_size and channels',
    ),
    (
      r'(down|up)\.\d',
      'config.tokenizer.encoder and decoder: ch_mult, res_blocks',
    ),
    (r'conv_(in|out)', 'config.tokenizer.encoder and decoder: ch, channels'),
  )

  def rows(self, ours):
    return [
      Row('quant/codebook', 'quantize.embedding.weight'),
      *autoencoder.rows(ours, autoencoder.maskgit),
    ]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    return False
