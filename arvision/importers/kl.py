"""The released KL autoencoder of MAR, which xAR, FlowAR and TokenBridge use too.

Source: LTH14/mar, models/vae.py.
"""

from arvision.importers import autoencoder
from arvision.importers.table import Grids, Weights

_NETWORK = ('encoder.', 'decoder.', 'quant_conv.', 'post_quant_conv.')


class Tokenizer:
  """`kl16.ckpt` and autoencoders of LDM with the same keys."""

  name = 'KL autoencoder'
  wrapping = 'model'
  hints = (
    (
      r'\.(down|up)\.\d+\.attn',
      'config.tokenizer.encoder and decoder: attention, attention_levels',
    ),
    (
      r'\.(down|up)\.|nin_shortcut',
      'config.tokenizer.encoder and decoder: ch, ch_mult, res_blocks',
    ),
    (
      r'quant_conv|conv_(in|out)',
      'config.tokenizer.quantizer.channels, data.channels',
    ),
    (r'^quantize\.', 'the file: its tokens are codes'),
  )

  def rows(self, ours):
    return list(autoencoder.rows(ours, autoencoder.ldm))

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    # What was trained beside the network: its losses, a discriminator.
    others = ('quantize.', 'first_stage_model.')
    return not key.startswith((*_NETWORK, *others))
