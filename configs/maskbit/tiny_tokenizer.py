"""MaskBit's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=maskbit/tiny_tokenizer --workdir=runs/maskbit/tiny_tokenizer

Source: arXiv 2409.16211.
"""

from arvision.configs import common
from arvision.configs.maskbit import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.maskbit.Tokenizer')
  config.tokenizer = parts.maskbit_tokenizer(
    quantizer=parts.lfq(6, extra_until=0.5),
    grid=(4, 4),
    ch=8,
    ch_mult=(1, 2),
    res_blocks=1,
    image_channels=1,
  )
  return common.tiny(config)
