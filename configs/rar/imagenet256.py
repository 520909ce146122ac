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

SIZES = {
  'B': dict(depth=24, width=768, hidden=3072),
  'L': dict(depth=24, width=1024, hidden=4096),
  'XL': dict(depth=32, width=1280, hidden=5120),
  'XXL': dict(depth=40, width=1408, hidden=6144),
}
SAMPLING = {
  'B': dict(temperature=1.0, guidance=16.0, power=2.75),
  'L': dict(temperature=1.02, guidance=15.5, power=2.5),
  'XL': dict(temperature=1.02, guidance=6.9, power=1.5),
  'XXL': dict(temperature=1.02, guidance=8.0, power=1.2),
}


def get_config(arg: str = 'B'):
  arg = arg or 'B'
  size = common.size(arg, SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/maskgit-tokenizer')
  parts.rar(
    config,
    grid=(16, 16),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    heads=16,
    spare_positions=1022,
    spare_steps=98,
    **size,
    **SAMPLING[arg],
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
