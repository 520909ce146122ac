"""The Axial Transformer at the size of a test, on scikit-learn's digits.

    arvision train --config=axial/tiny --workdir=runs/axial/tiny

Digits of 4 × 3 px with three channels.

Source: arXiv 1912.12180.
"""

from arvision.configs import common
from arvision.configs.axial import parts


def get_config(arg: str = ''):
  del arg
  config = common.pixels(
    common.block(
      type='data.pipeline.Images',
      source=common.block(type='data.digits.Digits'),
      size=(4, 3),
      channels=3,
      cache=True,
    )
  )
  parts.axial(
    config,
    levels=256,
    width=16,
    heads=2,
    hidden=32,
    encoder=1,
    outer=1,
    inner=1,
    classes=10,
  )
  return common.tiny(config)
