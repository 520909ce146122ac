"""A multi-scale tokenizer of colour emoji at 64 px, for VAR.

    arvision train --config=configs/var/emoji_tokenizer.py \\
      --workdir=runs/var/emoji_tokenizer

The pictures are rendered from a colour font, which Debian's package
`fonts-noto-color-emoji` puts where the config says. 64 × 64 px become 103
codes of 1024 on grids of side 1, 2, 3, 5, 8. Made for a GPU.

Source: arXiv 2404.02905 (quantiser and loss). Deviations: no perceptual loss
and no discriminator; unused codes are restarted.
"""

from arvision.configs import common
from arvision.configs.var import folder_tokenizer, parts


def get_config(arg: str = ''):
  config = folder_tokenizer.get_config(arg).unlock()
  config.data.source = common.block(
    type='data.emoji.Emoji',
    font='/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf',
    size=64,
    classes_by='group',
  )
  config.data.batch_size = 64
  config.release = common.block(type='importers.var.Tokenizer')
  config.tokenizer = parts.multi_scale_vq(
    scales=(1, 2, 3, 5, 8),
    vocab_size=1024,
    channels=16,
    image_channels=3,
    ch=64,
    ch_mult=(1, 2),
    res_blocks=1,
    z_channels=32,
    patch=4,
    attention=False,
  )
  config.train.duration = common.block(epochs=300)
  config.ema = (0.999,)
  return common.locked(config)
