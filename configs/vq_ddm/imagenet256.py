"""VQ-DDM on ImageNet 256 × 256.

    arvision train --config=configs/vq_diffusion/tokenizer.py:f16 \\
      --workdir=runs/vq_ddm-tokenizer --config.tokenizer.quantizer.vocab_size=1024
    arvision train --config=configs/vq_ddm/imagenet256.py --workdir=runs/vq_ddm

Uniform (multinomial) diffusion over 16 × 16 codes of 1,024: codes are replaced by
random ones and never masked. In-painting (`arvision edit`) takes no training.

As published: 4,000 times with a cosine schedule, the variational bound with times
sampled by importance, batch 180, Adam with betas 0.9 and 0.999, learning rate 1e-4
that falls to 0 on a cosine in 570,000 steps. A published figure is not known here.

Deviations: a transformer of VQ-Diffusion's size instead of a convolutional U-Net with
linear attention; norms embed time and class. The 1,024 codes are trained from the
start, where the published ones are clusters of a codebook of 16,384 to which encoder
and decoder are fine-tuned (ReFiT). The loss is in nats per code, where the official
code has bits; gradients are clipped to 1. The times of all devices have one average of
losses.

Source: arXiv 2112.01799; anonymrelease/VQ-DDM.
"""

from arvision.configs import common
from arvision.configs.vq_ddm import parts
from arvision.configs.vq_diffusion import tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tokenizer.get_config('f16'), 'runs/vq_ddm-tokenizer'
  )
  config.tokenizer.quantizer.vocab_size = 1024
  parts.vq_ddm(
    config,
    grid=config.tokenizer.grid,
    vocab_size=1024,
    classes=1000,
    depth=24,
    width=512,
    heads=16,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 180
  config.train = common.block(duration=common.block(steps=570_000))
  schedule = common.cosine(0.0, steps=0)
  config.optim = common.adamw(
    1e-4, schedule, weight_decay=0.0, b2=0.999, clip=1.0
  )
  config.ema = (0.9999,)
  return common.locked(config)
