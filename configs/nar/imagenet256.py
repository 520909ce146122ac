"""NAR on ImageNet 256 × 256: B, M, L, XL.

    arvision encode --config=configs/llamagen/tokenizer.py \\
      --workdir=runs/llamagen-tokenizer --views=ten_crop --output=DIR
    arvision train --config=configs/nar/imagenet256.py:B --workdir=runs/nar-b

Class labels, 16 × 16 tokens of LlamaGen's VQ-16 tokenizer, drawn diagonal by
diagonal in 31 steps. LlamaGen's recipe, with the learning rate divided by five
after 1/2, 2/3 and 5/6 of the run.

Deviations: guidance 2.0 is LlamaGen's; the code names no value of its own.

Source: arXiv 2503.10696; ThisisBillhe/NAR.
"""

from arvision.configs import common
from arvision.configs.llamagen import tokenizer
from arvision.configs.nar import parts

# `depth` is without the layer of the further branch.
SIZES = {
  'B': dict(depth=12, heads=12, width=768),
  'M': dict(depth=18, heads=16, width=1024),
  'L': dict(depth=24, heads=16, width=1024),
  'XL': dict(depth=36, heads=20, width=1280),
}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/llamagen-tokenizer')
  parts.nar(
    config,
    grid=(16, 16),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    guidance=2.0,
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 256
  config.train = common.block(duration=common.block(epochs=300))
  config.optim = common.adamw(
    1e-4,
    common.block(
      type='training.schedule.Stairs', at=(1 / 2, 2 / 3, 5 / 6), factor=0.2
    ),
    clip=1.0,
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
