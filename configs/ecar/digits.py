"""E-CAR on scikit-learn's digits: next stage of one flow, in CPU minutes.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer
    arvision train --config=configs/ecar/digits.py --workdir=runs/ecar/digits

The 4 × 4 latent in three stages, at sides 1, 2 and 4. `:one` has the last one
alone: plain flow matching.

Deviations: sizes, levels of the stages and recipe are not published; see parts.py
for what is.

Source: arXiv 2412.14170; a variant.
"""

from arvision.configs import common
from arvision.configs.ecar import parts
from arvision.configs.flowar import parts as flowar
from arvision.configs.mar import digits_tokenizer

SIZES = {'stages': (1, 2, 4), 'one': (4,)}


def get_config(arg: str = 'stages'):
  scales = common.size(arg or 'stages', SIZES)
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/mar/digits_tokenizer'
  )
  parts.ecar(
    config,
    scales=scales,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    width=96,
    heads=4,
    depth=2,
    second_depth=2,
    head=flowar.SELF,
    head_width=96,
    head_depth=2,
    head_heads=4,
    steps=10,
    guidance=2.0,
  )
  for part in (config.backbone, config.head):
    part.unroll = 2  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=60))
  config.optim = common.adamw(
    2e-3, common.cosine(0.025, epochs=6), weight_decay=0.02, clip=3.0
  )
  config.ema = (0.99,)
  return common.locked(config)
