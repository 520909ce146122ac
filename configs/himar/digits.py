"""Hi-MAR on scikit-learn's digits: 2 × 2 pivots, then 4 × 4 dense tokens.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer
    arvision train --config=configs/himar/digits.py --workdir=runs/himar/digits

Pivots are latents of the image shrunk to 4 × 4 px, by the same tokenizer.

Source: arXiv 2505.20288, at a size for 8 × 8 px. Deviations: diffusion starts at
time 990 instead of 999, 50 diffusion steps instead of 100 and 250, a cosine instead
of a constant rate, no dropout, all examples are shown hidden states of the pivots.
"""

from arvision.configs import common
from arvision.configs.himar import parts
from arvision.configs.mar import digits_tokenizer

FAMILIES = {'Hi-MAR': ''}


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/mar/digits_tokenizer'
  )
  scales = (2, 4)
  parts.pyramid(config.tokenizer, scales)
  parts.himar(
    config,
    scales=scales,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    depth=2,
    second_depth=2,
    width=96,
    heads=4,
    hidden=256,
    head_width=96,
    head_depth=3,
    dense_width=96,
    dense_depth=2,
    dense_heads=4,
    prefix=4,
    dropout=0.0,
    first_steps=4,
    steps=4,
    diffusion_steps=50,
    dense_diffusion_steps=50,
    first_guidance=2.0,
    guidance=2.0,
  )
  config.feed.update(recall=1.0, warmup=0.0)
  # From the last time on, what a small head says wrong of the noise is multiplied
  # by 20 000, see configs/mar/digits.py.
  for head in (config.head.first, config.head.later):
    head.highest = 990
    head.unroll = 3
  config.backbone.unroll = 2  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=26))
  config.optim = common.adamw(
    2e-3,
    common.cosine(0.05, fraction=0.05),
    weight_decay=0.02,
    clip=3.0,
    exempt=parts.NO_DECAY,
  )
  config.ema = (0.995,)
  config.pictures.every.fraction = 0.5  # twenty diffusions each
  return common.locked(config)
