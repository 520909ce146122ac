"""A multi-scale tokenizer of your own images at 64 px, for VAR.

    arvision train --config=configs/var/folder_tokenizer.py \\
      --workdir=runs/var/folder_tokenizer --config.data.source.path=my/pictures

The folder holds one sub-folder per class, or images only. Any size and shape
will do: the short side is resized to 64 px and a square is cut out of the
middle. 64 × 64 px become 130 codes of 512 on grids of side 1, 2, 3, 4, 6, 8.

Sized for two CPU cores: squares of 8 × 8 px enter as channels. On a GPU, train
longer, --config.train.duration.epochs=200, and take finer details in, as
configs/var/emoji_tokenizer.py does.

Cost: 12 minutes on two cores of an AMD EPYC.

Source: arXiv 2404.02905 (quantiser and loss). Deviations: no perceptual loss
and no discriminator; unused codes are restarted.
"""

from arvision.configs import common
from arvision.configs.var import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.data = common.block(
    type='data.pipeline.Images',
    source=common.block(type='data.folder.Folder', path=''),
    size=(64, 64),
    channels=3,
    batch_size=32,
    cache=True,
  )
  config.release = common.block(type='importers.var.Tokenizer')
  config.tokenizer = parts.multi_scale_vq(
    scales=(1, 2, 3, 4, 6, 8),
    vocab_size=512,
    channels=16,
    image_channels=3,
    ch=96,
    ch_mult=(1,),
    res_blocks=1,
    z_channels=32,
    patch=8,
    attention=False,
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer', l1=0.5, l2=2.0, restart_after=100
  )
  config.train = common.block(duration=common.block(steps=2000))
  config.optim = common.adamw(
    2e-3,
    common.cosine(0.02, steps=100),
    clip=1.0,
  )
  config.ema = (0.99,)
  common.follow(config)
  return common.locked(config)
