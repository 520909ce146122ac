"""ELM's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=elm/tiny_tokenizer --workdir=runs/elm/tiny_tokenizer

Source: arXiv 2410.16257.
"""

from arvision.configs import common
from arvision.configs.elm import parts

SIZES = {'20': False, '16_deterministic': True}


def get_config(arg: str = '20'):
  config = common.new()
  config.release = common.block(type='importers.elm.Tokenizer')
  config.tokenizer = parts.bae(
    grid=(4, 4),
    bits=6,
    ids=2,
    deterministic=common.size(arg or '20', SIZES),
    channels=8,
    ch=8,
    ch_mult=(1, 2),
    res_blocks=2,
    image_channels=1,
  )
  return common.tiny(config)
