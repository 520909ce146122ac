"""FlowAR on scikit-learn's digits: next scale by a flow, in CPU minutes.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer
    arvision train --config=configs/flowar/digits.py \\
      --workdir=runs/flowar/digits

The 4 × 4 latent at sides 1, 2, 4; a transformer over scales, and a small one
that denoises one scale. `:cross` has the flow head of the larger
published models, which also attends to z.

Cost: 2.8 minutes on two cores of an AMD EPYC.

Source: arXiv 2412.15205, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.flowar import parts
from arvision.configs.mar import digits_tokenizer

SIZES = (parts.SELF, parts.CROSS)


def get_config(arg: str = ''):
  head = arg or parts.SELF
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/mar/digits_tokenizer'
  )
  scales = (1, 2, 4)
  parts.pyramid(config.tokenizer, scales)
  parts.flowar(
    config,
    scales=scales,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    width=96,
    heads=4,
    depth=2,
    second_depth=2,
    head=head,
    head_width=96,
    head_depth=2,
    head_heads=4,
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
