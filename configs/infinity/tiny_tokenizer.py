"""Infinity's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=infinity/tiny_tokenizer --workdir=runs/infinity/tiny_tokenizer

Source: arXiv 2412.04431.
"""

from arvision.configs import common
from arvision.configs.infinity import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.infinity.Tokenizer')
  config.tokenizer = parts.multi_scale_bsq(
    scales=(1, 2, 4),
    bits=8,
    image_channels=1,
    ch=8,
    ch_mult=(1, 2),
    res_blocks=1,
  )
  return common.tiny(config)
