"""The VQ-16 tokenizer of LlamaGen on ImageNet 256 × 256.

    arvision train --config=configs/llamagen/tokenizer.py \\
      --workdir=runs/llamagen-tokenizer \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.lpips.path=FILE

As published: Adam, learning rate 1e-4 constant, batch 128, 40 epochs, clipping
at 1, L2 1, LPIPS 1, patch discriminator with hinge loss and fixed weight 0.5
from step 20 000 on. Published figure (not obtained here): rFID 2.19 at 16 × 16.

Source: arXiv 2406.06525; FoundationVision/LlamaGen.
"""

from arvision.configs import common
from arvision.configs.llamagen import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.data = common.imagenet(size=256, resize=None, batch_size=128)
  config.data.update(crop='adm', flip=True)
  config.release = common.block(type='importers.llamagen.Tokenizer')
  config.tokenizer = parts.vq(
    grid=(16, 16), vocab_size=16384, channels=8, ch=128, z_channels=256
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer',
    l1=0.0,
    l2=1.0,
    distances=common.block(lpips=common.lpips(1.0)),
    adversary=common.block(
      type='tokenizers.adversarial.Adversary',
      weight=0.5,
      start=20_000,
    ),
  )
  config.train = common.block(duration=common.block(epochs=40))
  config.optim = common.adamw(
    1e-4,
    common.block(type='training.schedule.Constant'),
    weight_decay=0.0,
    clip=1.0,
  )
  config.optim.kind = 'adam'
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
