"""The Axial Transformer on ImageNet 32 × 32.

    arvision train --config=configs/axial/imagenet32.py --workdir=runs/axial-32

A token is a pixel of one of three channels, with 256 levels, and a channel is
predicted given those before it.

Source: arXiv 1912.12180; no official code was found. Deviations: width, heads, depths,
batch and learning rate are chosen here, and so is where the output of the channel
encoder is added: to the inputs of both decoders. The class is given, with
`--config.condition.classes=0` it is not. Images are ImageNet's, resized here:
bits per dimension are not those of the downsampled ImageNet of the paper.
"""

from arvision.configs import common
from arvision.configs.axial import parts


def get_config(arg: str = ''):
  del arg
  return recipe(32)


def recipe(size: int):
  """The config for images of size × size px."""
  config = common.pixels(common.imagenet(size, None, 128))
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
