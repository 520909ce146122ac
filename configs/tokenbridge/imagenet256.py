"""TokenBridge on ImageNet 256 × 256, as published: L, H.

    arvision encode --config=configs/mar/tokenizer.py --workdir=runs/kl16 \\
      --views=flip --output=DIR
    arvision train --config=configs/tokenbridge/imagenet256.py:L \\
      --workdir=runs/tokenbridge-l

or, with the released weights,

    arvision import --config=configs/tokenbridge/imagenet256.py:L \\
      --workdir=runs/tokenbridge-l --source=checkpoint-last.pth

Latents of KL-16 in 64 levels per channel, drawn in MAR's random order, a token at
each of 256 steps, its channels one after another. The tokenizer is that of MAR
as it is.

Published figures (not obtained here): FID 1.76 / 1.55 and IS 294.8 / 313.3 with
the guidance and temperature of the table below; 486M / 910M parameters; rFID of
the levels 1.11 on training and 0.53 on validation images.

Deviations: bfloat16 instead of float16 with a scaled loss; the head takes all
tokens, of which the hidden ones are paid for, where the published code picks them
before.

Source: arXiv 2503.16430; YuqingWang1029/TokenBridge.
"""

from arvision.configs import common
from arvision.configs.mar import tokenizer
from arvision.configs.tokenbridge import parts

# `depth` is that of a half.
SIZES = {
  'L': dict(depth=16, width=1024, head_depth=4, guidance=3.1, temperature=0.96),
  'H': dict(
    depth=20, width=1280, head_depth=6, guidance=3.45, temperature=0.91
  ),
}
EPOCHS = {'L': 400, 'H': 800}
LEVELS = 64


def get_config(arg: str = 'L'):
  arg = arg or 'L'
  size = common.size(arg, SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/kl16')
  parts.quantized(config.tokenizer, LEVELS)
  parts.tokenbridge(
    config,
    order=parts.ORDER,
    levels=LEVELS,
    grid=(16, 16),
    classes=1000,
    second_depth=size['depth'],
    heads=16,
    hidden=4 * size['width'],
    head_width=1024,
    head_heads=8,
    head_hidden=4096,
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.head.dtype = 'bfloat16'
  config.head.remat = 'dots'
  config.data.update(batch_size=2048, crop='center')
  config.train = common.block(duration=common.block(epochs=EPOCHS[arg]))
  config.optim = common.adamw(
    4e-4, common.cosine(0.0, epochs=100), weight_decay=0.02, clip=3.0
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
