"""ARFlow on ImageNet 256 × 256, as published: S, B, L, XL with patches of 2.

    arvision encode --config=configs/acdit/tokenizer.py --workdir=runs/kl8 \\
      --views=flip --output=DIR
    arvision train --config=configs/arflow/imagenet256.py:XL \\
      --workdir=runs/arflow-xl

or, with the released weights,

    arvision import --config=configs/arflow/imagenet256.py:XL \\
      --workdir=runs/arflow-xl --source=FILE

Five images of a class at falling noise, each of 256 tokens of 2 × 2 latents of
Stable Diffusion's KL-8. `:XL_4` and `:XL_8` are the models with larger patches.
Sampling takes 250 steps. Guidance applies to three of the four channels.

Published figures (not obtained here): FID 6.63, and 1.96 with guidance 1.5.

Deviations: the batch and the number of steps are not published; batch 256 is
that of SiT (arXiv 2401.08740). An epoch visits every image once with four random
images of its class, where the official code draws a class first. Gradients are
clipped by their norm, to 3, where the official code clips every number to 3.
bfloat16 instead of float32.

Source: arXiv 2501.16085; TheFllood/ARFlow.
"""

from arvision.configs import common
from arvision.configs.acdit import tokenizer
from arvision.configs.arflow import parts

SIZES = {
  'S': dict(depth=12, width=384, heads=6),
  'B': dict(depth=12, width=768, heads=12),
  'L': dict(depth=24, width=1024, heads=16),
  'XL': dict(depth=28, width=1152, heads=18),
  'XL_4': dict(depth=28, width=1152, heads=16, patch=4),
  'XL_8': dict(depth=28, width=1152, heads=16, patch=8),
}


def get_config(arg: str = 'XL'):
  size = common.size(arg or 'XL', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/kl8')
  parts.arflow(
    config,
    grid=(32, 32),
    channels=4,
    classes=1000,
    guided=3,
    guidance=1.5,
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.update(batch_size=256, crop='center')
  config.train = common.block(duration=common.block(steps=400_000))
  config.optim = common.adamw(
    1e-4,
    common.block(type='training.schedule.Constant'),
    weight_decay=0.02,
    clip=3.0,
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
