"""Hi-MAR at the size of a test, on scikit-learn's digits.

    arvision train --config=mar/tiny_tokenizer --workdir=runs/mar/tiny_tokenizer
    arvision train --config=himar/tiny --workdir=runs/himar/tiny

Source: arXiv 2505.20288.
"""

from arvision.configs import common
from arvision.configs.himar import parts
from arvision.configs.mar import tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/mar/tiny_tokenizer'
  )
  scales = (2, 4)
  parts.pyramid(config.tokenizer, scales)
  parts.himar(
    config,
    scales=scales,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    second_depth=1,
    hidden=64,
    head_width=32,
    head_depth=2,
    dense_width=32,
    dense_depth=2,
    dense_heads=2,
    prefix=4,
    first_steps=2,
    steps=2,
    diffusion_steps=3,
    dense_diffusion_steps=3,
    **common.TINY,
  )
  config.sampler.buckets = 2
  return common.tiny(config)
