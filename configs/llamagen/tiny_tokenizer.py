"""LlamaGen's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=llamagen/tiny_tokenizer --workdir=runs/llamagen/tiny_tokenizer

Source: arXiv 2406.06525.
"""

from arvision.configs import common
from arvision.configs.llamagen import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.llamagen.Tokenizer')
  config.tokenizer = parts.vq(
    grid=(4, 4),
    vocab_size=64,
    channels=8,
    image_channels=1,
    ch=8,
    ch_mult=(1, 2),
    res_blocks=1,
    z_channels=8,
  )
  return common.tiny(config)
