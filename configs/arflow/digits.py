"""ARFlow on scikit-learn's digits: next noise level, in CPU minutes.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer
    arvision train --config=configs/arflow/digits.py --workdir=runs/arflow/digits

Five digits of a class at falling noise; a token is one latent, and guidance
applies to all channels.

Source: arXiv 2501.16085, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.arflow import parts
from arvision.configs.mar import digits_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/mar/digits_tokenizer'
  )
  parts.arflow(
    config,
    grid=(4, 4),
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    patch=1,
    spare=False,
    steps=40,
    guidance=2.0,
  )
  return common.digits(config, epochs=18)
