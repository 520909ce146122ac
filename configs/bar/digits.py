"""BAR on scikit-learn's digits: bits in random orders, in CPU minutes.

    arvision train --config=bar/digits_tokenizer \\
      --workdir=runs/bar/digits_tokenizer
    arvision train --config=bar/digits --workdir=runs/bar/digits

A head unmasks the eight bits of a token in four steps.

Source: arXiv 2602.09024, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.bar import digits_tokenizer, parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/bar/digits_tokenizer'
  )
  parts.bar(
    config,
    grid=config.tokenizer.grid,
    bits=len(config.tokenizer.quantizer.levels),
    classes=10,
    depth=4,
    width=96,
    heads=4,
    allocation=(1, 1, 2, 4),
    repeat=2,
    head_width=128,
    head_depth=2,
    dropout=0.1,
    guidance=1.0,  # more of it draws one handwriting per class
    temperature=1.0,
  )
  config.head.unroll = 2
  return common.digits(config, epochs=40, exempt=parts.NO_DECAY)
