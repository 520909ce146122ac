"""FlexVAR's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=flexvar/tiny_tokenizer --workdir=runs/flexvar/tiny_tokenizer

Source: arXiv 2502.20313.
"""

from arvision.configs import common
from arvision.configs.flexvar import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.llamagen.Tokenizer')
  config.tokenizer = parts.pyramid_vq(
    scales=(1, 2, 3, 4),
    vocab_size=64,
    channels=8,
    image_channels=1,
    ch=8,
    ch_mult=(1, 2),
    res_blocks=1,
    z_channels=8,
  )
  return common.tiny(config)
