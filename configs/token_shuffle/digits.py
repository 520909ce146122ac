"""Token-Shuffle on scikit-learn's digits: windows of 2 × 2 codes at a step.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/token_shuffle/digits.py \\
      --workdir=runs/token_shuffle/digits

The 16 codes of a digit are drawn in 4 steps. docs/families.md has its metrics.

Source: arXiv 2504.17789, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.llamagen import digits_tokenizer
from arvision.configs.token_shuffle import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/llamagen/digits_tokenizer'
  )
  parts.token_shuffle(
    config,
    window=2,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
    guidance=2.0,
  )
  return common.digits(config, epochs=50)
