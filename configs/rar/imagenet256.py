"""RAR on ImageNet 256 × 256, as published: B, L, XL, XXL.

    arvision encode --config=configs/maskgit/tokenizer.py \\
      --workdir=runs/maskgit-tokenizer --views=ten_crop --output=DIR
    arvision train --config=configs/rar/imagenet256.py:B --workdir=runs/rar-b

Class labels, 16 × 16 tokens of MaskGIT's tokenizer. Orders of prediction are
random for the first half of the run, then more and more often raster, which
they all are from three quarters on.

Published figures (not obtained here): FID 1.95 / 1.70 / 1.50 / 1.48 with the
guidance of the table below.

Source: arXiv 2411.00776; bytedance/1d-tokenizer.
"""

from arvision.configs import common
from arvision.configs.maskgit import tokenizer
from arvision.configs.rar import parts

# layers, width, MLP, temperature, guidance and its power.
SIZES = {
  'B': (24, 768, 3072, 1.0, 16.0, 2.75),
  'L': (24, 1024, 4096, 1.02, 15.5, 2.5),
  'XL': (32, 1280, 5120, 1.02, 6.9, 1.5),
  'XXL': (40, 1408, 6144, 1.02, 8.0, 1.2),
}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  depth, width, hidden, temperature, guidance, power = size
  config = common.generator(tokenizer.get_config(), 'runs/maskgit-tokenizer')
  parts.rar(
    config,
    grid=(16, 16),
    vocab_size=config.tokenizer.vocab_size,
    classes=1000,
    depth=depth,
    width=width,
    heads=16,
    hidden=hidden,
    guidance=guidance,
    power=power,
    temperature=temperature,
    spare_positions=1022,
    spare_steps=98,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 2048
  config.train = common.block(duration=common.block(steps=250_000))
  config.optim = common.adamw(
    4e-4,
    common.cosine(0.025, steps=62_500),
    weight_decay=0.03,
    b2=0.96,
    clip=1.0,
    exempt=parts.NO_DECAY,
  )
  config.ema = ()
  return common.locked(config)
