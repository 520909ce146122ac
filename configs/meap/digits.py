"""MEAP on scikit-learn's digits: masked inputs of next-token prediction.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/meap/digits.py --workdir=runs/meap/digits

llamagen/digits with 2 of the 15 input codes masked in training.

Source: arXiv 2502.07490, at a size for 8 × 8 px. Deviations: as in imagenet256.
"""

from arvision.configs import common
from arvision.configs.llamagen import digits_tokenizer
from arvision.configs.meap import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/llamagen/digits_tokenizer'
  )
  parts.meap(
    config,
    grid=(4, 4),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
    guidance=2.0,
  )
  return common.digits(config, epochs=50)
