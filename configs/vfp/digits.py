"""VFP on scikit-learn's digits: a prompt before the image, in CPU minutes.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/vfp/digits.py --workdir=runs/vfp/digits

The prompt is another digit of the class, sixteen codes, which the model samples before
the sixteen codes of the digit. `digits:uniform` has prompts of random codes.

Source: arXiv 2502.16965, at a size for 8 × 8 px. Deviations: as in imagenet256.
"""

from arvision.configs import common
from arvision.configs.llamagen import digits_tokenizer
from arvision.configs.vfp import parts

SIZES = {'class': dict(rows=4), 'uniform': dict(rows=4, prompt='uniform')}


def get_config(arg: str = 'class'):
  size = common.size(arg or 'class', SIZES)
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/llamagen/digits_tokenizer'
  )
  parts.vfp(
    config,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
    guidance=2.0,
    **size,
  )
  return common.digits(config, epochs=50)
