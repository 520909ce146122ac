"""MaskBit on scikit-learn's digits, in CPU minutes.

    arvision train --config=configs/maskbit/digits_tokenizer.py \\
      --workdir=runs/maskbit/digits_tokenizer
    arvision train --config=configs/maskbit/digits.py \\
      --workdir=runs/maskbit/digits

A BERT sees the bits of all sixteen tokens at once, half of a token masked at a
time, and samples the 32 halves in eight steps, the surest first.

Source: arXiv 2409.16211, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.maskbit import digits_tokenizer, parts
from arvision.configs.titok.parts import MASKED_OPTIM


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/maskbit/digits_tokenizer'
  )
  parts.maskbit(
    config,
    bits=config.tokenizer.quantizer.channels,
    guidance=parts.guidance(1.0, 2.5),
    temperature=2.0,
    grid=config.tokenizer.grid,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=384,
    steps=8,
    dropout=0.1,
  )
  return common.digits(config, epochs=60, **MASKED_OPTIM)
