"""VFP at the size of a test, on scikit-learn's digits.

    arvision train --config=llamagen/tiny_tokenizer --workdir=runs/llamagen/tiny_tokenizer
    arvision train --config=vfp/tiny --workdir=runs/vfp/tiny

`tiny:uniform` has prompts of random codes.

Source: arXiv 2502.16965.
"""

from arvision.configs import common
from arvision.configs.llamagen import tiny_tokenizer
from arvision.configs.vfp import parts

SIZES = {'class': dict(rows=2), 'uniform': dict(rows=2, prompt='uniform')}


def get_config(arg: str = 'class'):
  size = common.size(arg or 'class', SIZES)
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/llamagen/tiny_tokenizer'
  )
  parts.vfp(config, classes=10, hidden=64, **size, **common.TINY)
  return common.tiny(config)
