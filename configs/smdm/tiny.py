"""SMDM at the size of a test, on scikit-learn's digits.

    arvision train --config=maskgit/tiny_tokenizer --workdir=runs/maskgit/tiny_tokenizer
    arvision train --config=smdm/tiny --workdir=runs/smdm/tiny

Source: arXiv 2410.18514.
"""

from arvision.configs import common
from arvision.configs.maskgit import tiny_tokenizer
from arvision.configs.smdm import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/maskgit/tiny_tokenizer'
  )
  parts.smdm(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    hidden=64,
    samples=4,
    **common.TINY,
  )
  return common.tiny(config)
