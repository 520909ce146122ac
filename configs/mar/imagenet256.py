"""MAR on ImageNet 256 × 256, as published: B, L, H.

    arvision encode --config=configs/mar/tokenizer.py --workdir=runs/kl16 \\
      --views=flip --output=DIR
    arvision train --config=configs/mar/imagenet256.py:B --workdir=runs/mar-b

or, with the released weights,

    arvision import --config=configs/mar/imagenet256.py:B \\
      --workdir=runs/mar-b --source=checkpoint-last.pth

Latents of KL-16 in a random order, a token at each of 256 steps with 100 diffusion
steps each. `B_disa`, `L_disa` and `H_disa` draw in 64 steps with 50 diffusion steps
at the first and 5 at the last (DiSA, arXiv 2505.20297); they take the same weights.

Published figures (not obtained here): FID 2.31 / 1.78 / 1.55 with the guidance of
the table below; 208M / 479M / 943M parameters.

Deviations: bfloat16 instead of float16 with a scaled loss. The rate stays constant
after its warm-up, as published.

Source: arXiv 2406.11838; LTH14/mar.
"""

from arvision.configs import common
from arvision.configs.mar import parts, tokenizer

# `depth` is that of a half.
_B = dict(depth=12, width=768, heads=12, head_depth=6, head_width=1024)
_L = dict(depth=16, width=1024, heads=16, head_depth=8, head_width=1280)
_H = dict(depth=20, width=1280, heads=16, head_depth=12, head_width=1536)
SIZES = {
  'B': dict(guidance=2.9, steps=256, **_B),
  'L': dict(guidance=3.0, steps=256, **_L),
  'H': dict(guidance=3.2, steps=256, **_H),
  'B_disa': dict(guidance=2.9, steps=64, **_B),
  'L_disa': dict(guidance=3.0, steps=64, **_L),
  'H_disa': dict(guidance=3.3, steps=64, **_H),
}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/kl16')
  parts.mar(
    config,
    grid=(16, 16),
    channels=16,
    classes=1000,
    second_depth=size['depth'],
    hidden=4 * size['width'],
    **size,
  )
  if arg.endswith('_disa'):
    parts.anneal(config)
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.head.dtype = 'bfloat16'
  config.data.update(batch_size=2048, crop='center')
  config.train = common.block(duration=common.block(epochs=400))
  config.optim = common.adamw(
    8e-4,
    common.block(
      type='training.schedule.Constant', warmup=common.block(epochs=100)
    ),
    weight_decay=0.02,
    clip=3.0,
    exempt=parts.NO_DECAY,
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
