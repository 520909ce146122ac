"""MEAP at the size of a test, on scikit-learn's digits.

    arvision train --config=llamagen/tiny_tokenizer --workdir=runs/llamagen/tiny_tokenizer
    arvision train --config=meap/tiny --workdir=runs/meap/tiny

Source: arXiv 2502.07490.
"""

from arvision.configs import common
from arvision.configs.llamagen import tiny_tokenizer
from arvision.configs.meap import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/llamagen/tiny_tokenizer'
  )
  parts.meap(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    hidden=64,
    **common.TINY,
  )
  return common.tiny(config)
