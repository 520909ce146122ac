"""MaskGIT on ImageNet 256 × 256, as published.

    arvision train --config=configs/maskgit/imagenet256.py \\
      --workdir=runs/maskgit

A BERT of 24 layers over 16 × 16 codes of `tokenizer.py` beside this file. As
published: learning rate 1e-4, betas 0.9 and 0.96, weight decay 0.045, batch 256,
2M steps, at least half of the codes hidden, loss of hidden codes alone, no label
dropped and no guidance; 16 steps of the sampler (its function has 12), noise 4.5.
Published figure (not obtained here): FID 6.06.

Source: arXiv 2202.04200; google-research/maskgit. Deviations: the last matrix
is not the table of the codes, and the class is embedded by a table of its own.
"""

from arvision.configs import common
from arvision.configs.maskgit import parts, tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(tokenizer.get_config(), 'runs/maskgit-tokenizer')
  parts.maskgit(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    depth=24,
    width=768,
    heads=16,
    hidden=3072,
    steps=16,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 256
  config.train = common.block(duration=common.block(steps=2_000_000))
  config.optim = common.adamw(
    1e-4,
    common.cosine(0.0, steps=5_000),
    weight_decay=0.045,
    b2=0.96,
    clip=0.0,
  )
  config.ema = (0.9999,)
  return common.locked(config)
