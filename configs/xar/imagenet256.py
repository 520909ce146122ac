"""xAR on ImageNet 256 × 256, next cell, as published: B, L, H.

    arvision encode --config=configs/mar/tokenizer.py --workdir=runs/kl16 \\
      --views=flip --output=DIR
    arvision train --config=configs/xar/imagenet256.py:B --workdir=runs/xar-b

or, with the released weights,

    arvision import --config=configs/xar/imagenet256.py:B \\
      --workdir=runs/xar-b --source=xAR-B.pth

Four cells of 8 × 8 latents of MAR's KL-16. The rate rises for 100 epochs, stays
until three quarters of the run and falls along half a cosine, in a shorter run
too (`--config.train.duration.epochs=400`). Released models are sampled with 50
steps per cell; with `--config.sampler.counts.last=15` later cells have fewer,
50, 38, 26 and 15 (DiSA, arXiv 2505.20297).

Published figures (not obtained here): FID 1.72 / 1.28 / 1.24 with the guidance
of the table below; 172M / 608M / 1.1B parameters.

Deviations: bfloat16 instead of float16 with a scaled loss.

Source: arXiv 2502.20388; OliverRensu/xAR.
"""

from arvision.configs import common
from arvision.configs.mar import tokenizer
from arvision.configs.xar import parts

# `depth` is that of a half.
SIZES = {
  'B': dict(depth=8, width=768, heads=12, hidden=2048, guidance=2.7),
  'L': dict(depth=16, width=1024, heads=16, hidden=2730, guidance=2.3),
  'H': dict(depth=20, width=1280, heads=16, hidden=3413, guidance=2.2),
}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/kl16')
  parts.xar(
    config,
    grid=(16, 16),
    channels=16,
    classes=1000,
    side=8,
    steps=50,
    dropout=0.1,
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.update(batch_size=2048, crop='center')
  config.train = common.block(duration=common.block(epochs=800))
  config.optim = common.adamw(
    4e-4,
    common.block(
      type='training.schedule.WarmupHoldCosine',
      warmup=common.block(epochs=100),
      until=common.block(fraction=0.75),
      final=0.025,
    ),
    weight_decay=0.02,
    b2=0.96,
    clip=1.0,
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
