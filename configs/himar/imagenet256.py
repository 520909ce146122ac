"""Hi-MAR on ImageNet 256 × 256, as published: B, L, H.

    arvision encode --config=configs/himar/imagenet256.py:B --workdir=runs/kl16 \\
      --views=flip --output=DIR
    arvision train --config=configs/himar/imagenet256.py:B --workdir=runs/himar-b

or, with the released weights,

    arvision import --config=configs/himar/imagenet256.py:B \\
      --workdir=runs/himar-b --source=checkpoint-last.pth

Latents of KL-16. 8 × 8 pivots, latents of the image at 128 px, in 32 steps by an MLP
with 100 diffusion steps; then 16 × 16 dense tokens in 4 steps (H: 12) by a transformer
over the whole latent with 250.

Published figures (not obtained here): FID 1.93 / 1.66 / 1.52, IS 293.0 / 322.3 /
322.78 with the guidance of the table below; 244M / 529M / 1090M parameters.

Deviations: bfloat16 instead of float16 with a scaled loss. The number of masked tokens
of a batch is that of groups of 64 examples. Small images are shrunk from those of
256 px at every visit, not cropped from the file.

Source: arXiv 2505.20288; HiDream-ai/himar.
"""

from arvision.configs import common
from arvision.configs.himar import parts
from arvision.configs.mar import tokenizer

# `depth` is that of a half.
SIZES = {
  'B': dict(
    depth=12,
    width=768,
    heads=12,
    head_depth=6,
    head_width=1024,
    dense_depth=6,
    dense_width=512,
    dense_heads=8,
    first_guidance=2.7,
    guidance=2.5,
    steps=4,
  ),
  'L': dict(
    depth=16,
    width=1024,
    heads=16,
    head_depth=8,
    head_width=1280,
    dense_depth=8,
    dense_width=512,
    dense_heads=8,
    first_guidance=3.5,
    guidance=3.5,
    steps=4,
  ),
  'H': dict(
    depth=20,
    width=1280,
    heads=16,
    head_depth=12,
    head_width=1536,
    dense_depth=12,
    dense_width=768,
    dense_heads=12,
    first_guidance=5.5,
    guidance=3.2,
    steps=12,
  ),
}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/kl16')
  scales = (8, 16)
  parts.pyramid(config.tokenizer, scales)
  parts.himar(
    config,
    scales=scales,
    channels=16,
    classes=1000,
    second_depth=size['depth'],
    hidden=4 * size['width'],
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  for head in (config.head.first, config.head.later):
    head.dtype = 'bfloat16'
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
