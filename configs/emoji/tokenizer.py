"""A multi-scale tokenizer of colour emoji at 64 px, for VAR.

    arvision train --config=configs/emoji/tokenizer.py \\
      --workdir=runs/emoji/tokenizer

The pictures are rendered from a colour font, which Debian's package
`fonts-noto-color-emoji` puts where the config says. 64 × 64 px become 103
codes of 1024 on grids of side 1, 2, 3, 5, 8. Made for a GPU.

Source: arXiv 2404.02905 (quantiser and loss). Deviations: no perceptual loss
and no discriminator; unused codes are restarted.
"""

from arvision.configs import common


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.data = common.block(
    type='data.pipeline.Images',
    source=common.block(
      type='data.emoji.Emoji',
      font='/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf',
      size=64,
      classes_by='group',
    ),
    size=(64, 64),
    channels=3,
    batch_size=64,
    flip=True,
    cache=True,
  )
  config.tokenizer = common.block(
    type='tokenizers.residual.MultiScaleVQ',
    scales=(1, 2, 3, 5, 8),
    vocab_size=1024,
    channels=16,
    **common.autoencoder(
      image_channels=3,
      ch=64,
      ch_mult=(1, 2),
      res_blocks=1,
      z_channels=32,
      patch=4,
      attention=False,
    ),
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer', l1=0.5, l2=2.0, restart_after=100
  )
  config.train = common.block(duration=common.block(epochs=300))
  config.optim = common.adamw(
    2e-3,
    common.block(
      type='training.schedule.WarmupCosine',
      warmup=common.block(steps=100),
      final=0.02,
    ),
    clip=1.0,
  )
  return common.locked(config)
