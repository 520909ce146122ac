"""Infinity on scikit-learn's digits and their captions, in CPU minutes.

    arvision train --config=configs/infinity/digits_tokenizer.py \\
      --workdir=runs/infinity/digits_tokenizer
    arvision train --config=configs/infinity/digits.py \\
      --workdir=runs/infinity/digits
    arvision sample --workdir=runs/infinity/digits \\
      --captions 'a handwritten digit 7' 'a three, no: a 5'

Every word is a fixed vector of random numbers, so no text encoder is needed.

Source: arXiv 2412.04431, at a size for 8 × 8 px. Deviations: bits are sampled as
they are predicted, at temperature 1 and without top-p; adaLN starts larger.
"""

from arvision.configs import common
from arvision.configs.infinity import digits_tokenizer, parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/infinity/digits_tokenizer'
  )
  caption = {'length': 8, 'channels': 32}
  config.data.text = common.block(type='data.text.HashedWords', **caption)
  parts.infinity(
    config,
    depth=4,
    width=96,
    heads=4,
    pool_heads=4,
    hidden=384,
    units=(8, 8),
    guidance=1.0,  # more of it draws one handwriting per class
    temperature=1.0,
    top_p=1.0,
    **caption,
  )
  config.backbone.block.adaln.update(gate=0.1, rest=0.5)
  return common.digits(config, epochs=30, clip=2.0, exempt=parts.NO_DECAY)
