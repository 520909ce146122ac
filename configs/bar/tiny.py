"""BAR at the size of a test, on scikit-learn's digits.

    arvision train --config=bar/tiny_tokenizer --workdir=runs/bar/tiny_tokenizer
    arvision train --config=bar/tiny --workdir=runs/bar/tiny

`B` has tokens of 2 × 2 patches, `L` has dropout.

Source: arXiv 2602.09024.
"""

from arvision.configs import common
from arvision.configs.bar import parts, tiny_tokenizer

SIZES = {
  'B': dict(patch=2, dropout=0.0, allocation=(2, 4, 6)),
  'L': dict(patch=1, dropout=0.2, allocation=(1, 2)),
}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/bar/tiny_tokenizer'
  )
  parts.bar(
    config,
    grid=config.tokenizer.grid,
    bits=len(config.tokenizer.quantizer.levels),
    classes=10,
    repeat=2,
    head_width=24,
    head_depth=1,
    spare_positions=3,
    spare_steps=2,
    **common.TINY,
    **size,
  )
  return common.tiny(config)
