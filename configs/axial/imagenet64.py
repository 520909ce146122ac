"""The Axial Transformer on ImageNet 64 × 64.

    arvision train --config=configs/axial/imagenet64.py --workdir=runs/axial-64

A token is a pixel of one of three channels, with 256 levels, and a channel is
predicted given those before it.

Source: arXiv 1912.12180; no official code was found. Deviations: those of
axial/imagenet32.py.
"""

from arvision.configs import common
from arvision.configs.axial import parts


def get_config(arg: str = ''):
  del arg
  config = common.pixels(common.imagenet(64, None, 128))
  parts.axial(
    config,
    levels=256,
    width=512,
    heads=8,
    hidden=2048,
    encoder=4,
    outer=4,
    inner=4,
    classes=1000,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.train = common.block(duration=common.block(epochs=100))
  config.optim = common.adamw(2e-4, common.cosine(0.0, epochs=1), clip=1.0)
  config.ema = (0.9999,)
  return common.locked(config)
