"""TokenBridge at the size of a test, on scikit-learn's digits.

    arvision train --config=mar/tiny_tokenizer --workdir=runs/mar/tiny_tokenizer
    arvision train --config=tokenbridge/tiny --workdir=runs/tokenbridge/tiny

Source: arXiv 2503.16430.
"""

from arvision.configs import common
from arvision.configs.mar import tiny_tokenizer
from arvision.configs.tokenbridge import parts

LEVELS = 16


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/mar/tiny_tokenizer'
  )
  parts.quantized(config.tokenizer, LEVELS)
  parts.tokenbridge(
    config,
    order=(2, 0, 3, 1),
    levels=LEVELS,
    grid=config.tokenizer.grid,
    classes=10,
    second_depth=1,
    hidden=64,
    head_width=32,
    head_depth=2,
    head_heads=2,
    head_hidden=64,
    prefix=4,
    steps=3,
    **common.TINY,
  )
  return common.tiny(config)
