"""ACDiT on ImageNet 256 × 256, as published: B, L, XL, H.

    arvision encode --config=configs/acdit/tokenizer.py --workdir=runs/kl8 \\
      --views=flip --output=DIR
    arvision train --config=configs/acdit/imagenet256.py:L --workdir=runs/acdit-l

or, with the released weights,

    arvision import --config=configs/acdit/imagenet256.py:H \\
      --workdir=runs/acdit-h --source=ACDiT-H-img.pt

Four blocks of 16 × 16 latents of Stable Diffusion's KL-8, each in 25 steps of
DPM-Solver++. The rate is constant and halves six times in the last 15 % of the
run.

Published figures (not obtained here): FID 2.53 (L), 2.45 (XL) and 2.37 (H) with
scale 1.5; 132M / 460M / 677M / 954M parameters.

Deviations: betas of AdamW and the clip are those of the code, whose rate and
weight decay are not the published ones.

Source: arXiv 2412.07720; thunlp/ACDiT.
"""

from arvision.configs import common
from arvision.configs.acdit import parts, tokenizer

SIZES = {
  'B': dict(depth=12, width=768, heads=12),
  'L': dict(depth=24, width=1024, heads=16),
  'XL': dict(depth=28, width=1152, heads=18),
  'H': dict(depth=32, width=1280, heads=20),
}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/kl8')
  parts.acdit(
    config,
    grid=(32, 32),
    channels=4,
    classes=1000,
    hidden=4 * size['width'],
    cell=(16, 16),
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 1024
  config.train = common.block(duration=common.block(steps=1_200_000))
  config.optim = common.adamw(
    3e-4,
    common.block(type='training.schedule.WarmupStableDecay'),
    weight_decay=0.0,
    clip=1.0,
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
