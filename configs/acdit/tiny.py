"""ACDiT at the size of a test, on scikit-learn's digits.

    arvision train --config=acdit/tiny_tokenizer --workdir=runs/acdit/tiny_tokenizer
    arvision train --config=acdit/tiny --workdir=runs/acdit/tiny

Source: arXiv 2412.07720.
"""

from arvision.configs import common
from arvision.configs.acdit import parts, tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/acdit/tiny_tokenizer'
  )
  parts.acdit(
    config,
    grid=config.tokenizer.grid,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    hidden=64,
    cell=(2, 2),
    steps=3,
    guidance=2.0,
    **common.TINY,
  )
  return common.tiny(config)
