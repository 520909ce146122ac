"""LlamaGen on ImageNet 256 × 256, as published: B, L, XL, XXL, 3B.

    arvision encode --config=configs/llamagen/tokenizer.py \\
      --workdir=runs/llamagen-tokenizer --views=ten_crop --output=DIR
    arvision train --config=configs/llamagen/imagenet256.py:B \\
      --workdir=runs/llamagen-b

Class labels, 16 × 16 tokens of the VQ-16 tokenizer.

Published figures (not obtained here): FID 5.46 (B) and 3.80 (L) at 16 × 16
tokens; XL, XXL and 3B were trained at 24 × 24 only. Guidance 2.0 for B and L,
1.75 for XL and XXL, 1.65 for 3B.

Source: arXiv 2406.06525; FoundationVision/LlamaGen.
"""

from arvision.configs import common
from arvision.configs.llamagen import parts, tokenizer

# `guidance` is that of the published FID.
SIZES = {
  'B': dict(depth=12, heads=12, width=768, guidance=2.0),
  'L': dict(depth=24, heads=16, width=1024, guidance=2.0),
  'XL': dict(depth=36, heads=20, width=1280, guidance=1.75),
  'XXL': dict(depth=48, heads=24, width=1536, guidance=1.75),
  '3B': dict(depth=24, heads=32, width=3200, guidance=1.65),
}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/llamagen-tokenizer')
  parts.llamagen(
    config,
    grid=(16, 16),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  recipe(config)
  return common.locked(config)


def recipe(config):
  """How LlamaGen's class-conditional models are trained."""
  config.data.batch_size = 256
  config.train = common.block(duration=common.block(epochs=300))
  config.optim = common.adamw(
    1e-4, common.block(type='training.schedule.Constant'), clip=1.0
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
