"""MaskGIT's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=maskgit/tiny_tokenizer --workdir=runs/maskgit/tiny_tokenizer

Source: arXiv 2202.04200.
"""

from arvision.configs import common
from arvision.configs.maskgit import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.maskgit.Tokenizer')
  config.tokenizer = parts.maskgit_vq(
    grid=(4, 4),
    vocab_size=64,
    channels=8,
    ch=8,
    ch_mult=(1, 2),
    res_blocks=1,
    image_channels=1,
  )
  return common.tiny(config)
