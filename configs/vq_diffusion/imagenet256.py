"""VQ-Diffusion on ImageNet 256 × 256, as published.

    arvision train --config=configs/vq_diffusion/imagenet256.py \\
      --workdir=runs/vq_diffusion

A transformer of 24 layers whose MLPs are convolutions, over 16 × 16 codes. Its
norms embed the time and the class. Improved VQ-Diffusion has a null class with an
embedding of its own, and is fine-tuned from these weights (`--init_from`):
--config.backbone.block.mlp_norm.count=1001 --config.condition.drop=0.1
--config.sampler.guidance.scale=1.5 --config.sampler.logits_filter.top_p=0.94.

As published: 100 times, AdamW with betas 0.9 and 0.96, weight decay 0.045 of all
parameters, gradients clipped to 0.5, learning rate 4.5e-4 after 5,000 steps of
warm-up, 100 epochs, batches of 32 per GPU, cross entropy 0.001, truncation 0.86.
Published figures (not obtained here): FID 11.89, and 4.83 with
guidance. Others report about 20 with the released weights
(https://github.com/microsoft/VQ-Diffusion/issues/7).

Source: arXiv 2111.14822, 2205.16007; microsoft/VQ-Diffusion. Deviations: the number
of GPUs is not published; 8 are supposed. The published average moves every 25 steps
with 0.99; here it moves every step with as much in all. The table of
positions is of 32 × 32 places, of which the first 256 are used, as published. The
times of all devices have one average of losses.
"""

from arvision.configs import common
from arvision.configs.vq_diffusion import parts, tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tokenizer.get_config('f16'), 'runs/vq_diffusion-tokenizer-f16'
  )
  parts.vq_diffusion(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    depth=24,
    width=512,
    heads=16,
    sides=(32, 32),
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 256
  config.train = common.block(duration=common.block(epochs=100))
  config.optim = parts.plateau(4.5e-4, warmup=5_000)
  config.ema = (0.9996,)
  return common.locked(config)
