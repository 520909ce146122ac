"""TokenBridge on scikit-learn's digits: latents in levels, channel by channel.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer
    arvision train --config=configs/tokenbridge/digits.py \\
      --workdir=runs/tokenbridge/digits

16 levels for each of 4 channels, in MAR's random order.

Cost: 2.9 minutes on two cores of an AMD EPYC.

Source: arXiv 2503.16430, at a size for 8 × 8 px. Deviations: the tables of levels
start small, and the levels cover 3 instead of 5 standard deviations.
"""

from arvision.configs import common
from arvision.configs.mar import digits_tokenizer
from arvision.configs.tokenbridge import parts

LEVELS = 16


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/mar/digits_tokenizer'
  )
  parts.quantized(config.tokenizer, LEVELS, low=-3.0, high=3.0)
  parts.tokenbridge(
    config,
    order=(0, 1, 2, 3),
    levels=LEVELS,
    grid=(4, 4),
    classes=10,
    depth=2,
    second_depth=2,
    width=96,
    heads=4,
    hidden=256,
    head_width=64,
    head_depth=1,
    head_heads=2,
    head_hidden=128,
    prefix=4,
    steps=8,
    guidance=2.5,
    temperature=0.8,
  )
  config.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.head.dropout = 0.0
  config.head.table_std = 0.02
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=70))
  config.optim = common.adamw(
    2e-3, common.cosine(0.05, fraction=0.05), weight_decay=0.02, clip=3.0
  )
  config.ema = (0.995,)
  return common.locked(config)
