"""MaskGIT at the size of a test, on scikit-learn's digits.

    arvision train --config=maskgit/tiny_tokenizer --workdir=runs/maskgit/tiny_tokenizer
    arvision train --config=maskgit/tiny --workdir=runs/maskgit/tiny

Source: arXiv 2202.04200.
"""

from arvision.configs import common
from arvision.configs.maskgit import parts, tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/maskgit/tiny_tokenizer'
  )
  parts.maskgit(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    hidden=64,
    steps=3,
    **common.TINY,
  )
  return common.tiny(config)
