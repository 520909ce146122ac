"""MAR's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=mar/tiny_tokenizer --workdir=runs/mar/tiny_tokenizer

Source: arXiv 2112.10752 (kl-f16).
"""

from arvision.configs import common
from arvision.configs.mar import tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.kl.Tokenizer')
  config.tokenizer = tokenizer.kl16(
    grid=(4, 4),
    channels=4,
    ch=8,
    ch_mult=(1, 2),
    res_blocks=1,
    image_channels=1,
  )
  return common.tiny(config)
