"""MAR at the size of a test, on scikit-learn's digits.

    arvision train --config=mar/tiny_tokenizer --workdir=runs/mar/tiny_tokenizer
    arvision train --config=mar/tiny --workdir=runs/mar/tiny

`tiny:causal` is the baseline of the paper: next latent in raster order.

Source: arXiv 2406.11838.
"""

from arvision.configs import common
from arvision.configs.mar import parts, tiny_tokenizer

SIZES = {'B': parts.mar, 'causal': parts.causal}


def get_config(arg: str = 'B'):
  make = common.size(arg or 'B', SIZES)
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/mar/tiny_tokenizer'
  )
  make(
    config,
    grid=config.tokenizer.grid,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    second_depth=1,
    hidden=64,
    head_width=32,
    head_depth=2,
    prefix=4,
    steps=3,
    diffusion_steps=3,
    **common.TINY,
  )
  return common.tiny(config)
