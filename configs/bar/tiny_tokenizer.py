"""BAR's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=bar/tiny_tokenizer --workdir=runs/bar/tiny_tokenizer

Source: arXiv 2602.09024.
"""

from arvision.configs import common
from arvision.configs.bar import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.bar.Tokenizer')
  config.tokenizer = parts.tokenizer(
    bits=3,
    grid=(4, 4),
    patch=2,
    encoder=common.TINY,
    decoder=common.TINY,
    positions=(2, 2),
    image_channels=1,
    align=dict(hidden=16, layer=1, weight=0.7),
  )
  return common.tiny(config)
