"""The multi-scale tokenizer of VAR on ImageNet 256 × 256.

    arvision train --config=configs/var/tokenizer.py \\
      --workdir=runs/var-tokenizer \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.lpips.path=FILE

`tokenizer.py:512` and `tokenizer.py:1024` are the same for larger images. The
architecture is that of the released `vae_ch160v4096z32` (108.95M parameters);
the released weights were trained on OpenImages by code that was never
published. The recipe follows the nearest official trainer: AdamW with betas
(0.5, 0.9), learning rate 3e-4 at batch 768, weight decay 0.005, clipping at 10,
L1 0.2, L2 1, LPIPS 1, hinge loss with adaptive weight 0.4 from a fifth of the
run on.

Deviations: a convolutional patch discriminator where that trainer has one on
DINO features; dead codes are restarted; the schedule of weights has no blur.

Source: arXiv 2404.02905; FoundationVision/VAR; FoundationVision/vaex.
"""

from arvision.configs import common
from arvision.configs.var import parts

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
# The released weights serve 512 px too, with other grids.
SCALES_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)
# Those of Infinity (arXiv 2412.04431).
SCALES_1024 = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
SIDES = {'256': SCALES, '512': SCALES_512, '1024': SCALES_1024}
STEPS_PER_EPOCH = 1_281_167 // 768


def get_config(arg: str = '256'):
  scales = common.size(arg or '256', SIDES)
  side = int(arg or 256)
  config = common.new()
  resize = side * 9 // 8
  config.data = common.imagenet(size=side, resize=resize, batch_size=768)
  config.release = common.block(type='importers.var.Tokenizer')
  config.tokenizer = parts.multi_scale_vq(
    vocab_size=4096, channels=32, scales=scales, ch=160, z_channels=32
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer',
    l1=0.2,
    l2=1.0,
    distances=common.block(lpips=common.lpips(1.0)),
    adversary=common.block(
      type='tokenizers.adversarial.Adversary',
      weight=0.4,
      start=50 * STEPS_PER_EPOCH,
      limits=(0.015, 1e4),
    ),
    restart_after=1000,
  )
  config.train = common.block(duration=common.block(epochs=250))
  config.optim = common.adamw(
    3e-4,
    common.cosine(0.3, fraction=0.01),
    weight_decay=0.005,
    clip=10.0,
  )
  config.optim.update(b1=0.5, b2=0.9)
  config.ema = (0.9999,)
  return common.locked(config)
