"""MAR on scikit-learn's digits: latents in random order, each by diffusion.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer
    arvision train --config=configs/mar/digits.py --workdir=runs/mar/digits

`digits.py:causal` is the baseline of the paper: next latent in raster order.

Cost: 3.7 minutes on two cores of an AMD EPYC.

Source: arXiv 2406.11838, at a size for 8 × 8 px. Deviations: diffusion starts at
time 990 instead of 999, a cosine instead of a constant rate.
"""

from arvision.configs import common
from arvision.configs.mar import digits_tokenizer, parts

SIZES = ('masked', 'causal')
FAMILIES = {'MAR': '', 'MAR, causal': 'causal'}


def get_config(arg: str = 'masked'):
  kind = arg or 'masked'
  make = common.size(kind, {'masked': parts.mar, 'causal': parts.causal})
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/mar/digits_tokenizer'
  )
  make(
    config,
    grid=(4, 4),
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    depth=2,
    second_depth=2,
    width=96,
    heads=4,
    hidden=256,
    head_width=128,
    head_depth=3,
    prefix=1 if kind == 'causal' else 4,
    dropout=0.1,
    steps=8,
    diffusion_steps=50,
    guidance=2.0,
  )
  # From the last time on, what a small head says wrong of the noise is multiplied
  # by 20 000: half of the samples lose their label.
  config.head.highest = 990
  config.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.head.unroll = 3
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=60))
  config.optim = common.adamw(
    2e-3,
    common.cosine(0.05, fraction=0.05),
    weight_decay=0.02,
    clip=3.0,
    exempt=parts.NO_DECAY,
  )
  config.ema = (0.995,)
  return common.locked(config)
