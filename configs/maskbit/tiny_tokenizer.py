"""MaskBit's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=maskbit/tiny_tokenizer --workdir=runs/maskbit/tiny_tokenizer

`tiny_tokenizer:vqgan_plus` has a table of codes.

Source: arXiv 2409.16211.
"""

from arvision.configs import common
from arvision.configs.maskbit import parts

SIZES = {
  '14': parts.lfq(6, extra_until=0.5),
  'vqgan_plus': common.lookup(64, 8),
}


def get_config(arg: str = '14'):
  quantizer = common.size(arg or '14', SIZES)
  config = common.new()
  config.release = common.block(type='importers.maskbit.Tokenizer')
  config.tokenizer = parts.maskbit_tokenizer(
    quantizer=quantizer,
    grid=(4, 4),
    ch=8,
    ch_mult=(1, 2),
    res_blocks=1,
    image_channels=1,
  )
  return common.tiny(config)
