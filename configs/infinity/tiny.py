"""Infinity at the size of a test, on scikit-learn's digits.

    arvision train --config=infinity/tiny_tokenizer --workdir=runs/infinity/tiny_tokenizer
    arvision train --config=infinity/tiny --workdir=runs/infinity/tiny

Source: arXiv 2412.04431.
"""

from arvision.configs import common
from arvision.configs.infinity import parts, tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/infinity/tiny_tokenizer'
  )
  caption = {'length': 4, 'channels': 8}
  config.data.text = common.block(type='data.text.HashedWords', **caption)
  parts.infinity(
    config,
    pool_heads=2,
    chunks=2,
    hidden=64,
    units=(8, 8),
    **caption,
    **common.TINY,
  )
  return common.tiny(config)
