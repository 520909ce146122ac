"""RAR at the size of a test, on scikit-learn's digits.

    arvision train --config=maskgit/tiny_tokenizer --workdir=runs/maskgit/tiny_tokenizer
    arvision train --config=rar/tiny --workdir=runs/rar/tiny

Source: arXiv 2411.00776.
"""

from arvision.configs import common
from arvision.configs.maskgit import tiny_tokenizer
from arvision.configs.rar import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/maskgit/tiny_tokenizer'
  )
  parts.rar(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    hidden=64,
    power=2.5,
    temperature=1.02,
    spare_positions=3,
    spare_steps=2,
    **common.TINY,
  )
  return common.tiny(config)
