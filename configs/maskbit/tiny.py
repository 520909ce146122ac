"""MaskBit at the size of a test, on scikit-learn's digits.

    arvision train --config=maskbit/tiny_tokenizer --workdir=runs/maskbit/tiny_tokenizer
    arvision train --config=maskbit/tiny --workdir=runs/maskbit/tiny

Source: arXiv 2409.16211.
"""

from arvision.configs import common
from arvision.configs.maskbit import parts, tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/maskbit/tiny_tokenizer'
  )
  parts.maskbit(
    config,
    bits=config.tokenizer.quantizer.channels,
    guidance=parts.guidance(3.0, 2.5),
    temperature=6.0,
    grid=config.tokenizer.grid,
    classes=10,
    hidden=64,
    steps=3,
    **common.TINY,
  )
  return common.tiny(config)
