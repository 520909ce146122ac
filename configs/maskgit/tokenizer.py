"""The VQGAN tokenizer of MaskGIT on ImageNet 256 × 256; RAR draws its codes.

    arvision train --config=configs/maskgit/tokenizer.py \\
      --workdir=runs/maskgit-tokenizer \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.lpips.path=FILE

As published: Adam with betas (0, 0.99), learning rate 1e-4, batch 256, 1M
steps, entropy loss 0.1, perceptual loss 0.1, adversarial loss 0.1. Published
figure (not obtained here): rFID 2.28.

Deviations: a patch discriminator with hinge loss where the published one is
StyleGAN's with a non-saturating loss and a gradient penalty; LPIPS where the
published perceptual loss compares logits of a ResNet.

Source: arXiv 2202.04200; google-research/maskgit; bytedance/1d-tokenizer.
"""

from arvision.configs import common
from arvision.configs.maskgit import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.data = common.imagenet(size=256, resize=None, batch_size=256)
  config.data.flip = True
  config.release = common.block(type='importers.maskgit.Tokenizer')
  config.tokenizer = parts.maskgit_vq(
    grid=(16, 16), vocab_size=1024, channels=256, ch=128
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer',
    l1=0.0,
    l2=1.0,
    distances=common.block(lpips=common.lpips(0.1)),
    adversary=common.block(type='tokenizers.adversarial.Adversary', weight=0.1),
  )
  config.train = common.block(duration=common.block(steps=1_000_000))
  config.optim = common.adamw(
    1e-4,
    common.block(type='training.schedule.Constant'),
    weight_decay=0.0,
    clip=0.0,
  )
  config.optim.update(kind='adam', b1=0.0, b2=0.99)
  config.ema = (0.999,)
  return common.locked(config)
