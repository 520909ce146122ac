"""VAR's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=var/tiny_tokenizer --workdir=runs/var/tiny_tokenizer

Source: arXiv 2404.02905.
"""

from arvision.configs import common
from arvision.configs.var import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.var.Tokenizer')
  config.tokenizer = parts.multi_scale_vq(
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
