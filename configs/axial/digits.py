"""The Axial Transformer on the pixels of scikit-learn's digits, in CPU minutes.

    arvision train --config=configs/axial/digits.py --workdir=runs/axial/digits

There is no tokenizer to train: the tokens are the 64 pixels of a digit, each one of
17 grey levels. A step of sampling runs two layers; the four others run once a
row. `arvision eval` has the bits per dimension of held-out digits.

Source: arXiv 1912.12180, at a size for 8 × 8 px. Deviations: the class is given.
"""

from arvision.configs import common
from arvision.configs.axial import parts
from arvision.configs.llamagen import digits_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.pixels(digits_tokenizer.get_config().data)
  parts.axial(
    config,
    levels=17,
    width=64,
    heads=2,
    hidden=128,
    encoder=0,
    outer=2,
    inner=2,
    classes=10,
    dropout=0.1,
    guidance=1.5,
  )
  return common.digits(config, epochs=30)
