"""MaskBit on ImageNet 256 × 256, as published: tokens of 10 to 18 bits.

    arvision train --config=configs/maskbit/imagenet256.py:14 \\
      --workdir=runs/maskbit-14

A BERT sees the bits of all tokens at once, in two halves per token, each of which
may be masked. There is no table of codes: bits enter as they are.

As published: batch 1024, 1.35M steps, AdamW, learning rate 1e-4, cosine to a
tenth, decay of all parameters, loss of masked and unmasked halves alike. Published
figures (not obtained here): FID 1.68 (10 bits), 1.65 (12), 1.62 (14), 1.64 (16),
1.67 (18) in 64 steps; with 14 bits 1.56 in 128 steps (scale 8.1, noise 9.0) and
1.52 in 256 (scale 6.8, noise 10.3). Their guidance is written c + s (c - u); the
scale here is 1 + s.

Source: arXiv 2409.16211; markweberdev/maskbit.
"""

from arvision.configs import common
from arvision.configs.maskbit import parts, tokenizer

# Guidance s, its power, and the noise of the sampler.
SIZES = {
  '10': dict(scale=6.4, power=2.5, temperature=10.5),
  '12': dict(scale=7.1, power=3.0, temperature=8.2),
  '14': dict(scale=7.1, power=3.0, temperature=7.8),
  '16': dict(scale=6.5, power=2.5, temperature=7.5),
  '18': dict(scale=5.7, power=2.5, temperature=8.5),
}


def get_config(arg: str = '14'):
  arg = arg or '14'
  size = common.size(arg, SIZES)
  config = common.generator(
    tokenizer.get_config(arg), f'runs/maskbit-tokenizer-{arg}'
  )
  parts.maskbit(
    config,
    bits=config.tokenizer.quantizer.channels,
    guidance=parts.guidance(size['scale'], size['power']),
    temperature=size['temperature'],
    grid=config.tokenizer.grid,
    classes=1000,
    depth=24,
    width=1024,
    heads=16,
    hidden=4096,
    steps=64,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 1024
  config.train = common.block(duration=common.block(steps=1_350_000))
  config.optim = common.adamw(
    1e-4,
    common.cosine(0.1, steps=5_000),
    weight_decay=0.045,
    b2=0.96,
    clip=1.0,
  )
  config.optim.decay.min_ndim = 0
  config.ema = (0.999,)
  return common.locked(config)
