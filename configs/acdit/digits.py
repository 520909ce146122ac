"""ACDiT on scikit-learn's digits: blocks by diffusion, in CPU minutes.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer
    arvision train --config=configs/acdit/digits.py --workdir=runs/acdit/digits

Four blocks of 2 × 2 latents.

Source: arXiv 2412.07720, at a size for 8 × 8 px. Deviations: a warm-up, weight
decay 0.02, and decay over half of the run.
"""

from arvision.configs import common
from arvision.configs.acdit import parts
from arvision.configs.mar import digits_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/mar/digits_tokenizer'
  )
  parts.acdit(
    config,
    grid=(4, 4),
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=384,
    cell=(2, 2),
    steps=25,
    guidance=2.0,
  )
  config.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=60))
  config.optim = common.adamw(
    2e-3,
    common.block(
      type='training.schedule.WarmupStableDecay',
      warmup=common.block(fraction=0.05),
      until=common.block(fraction=0.5),
    ),
    weight_decay=0.02,
    clip=1.0,
  )
  config.ema = (0.99,)
  return common.locked(config)
