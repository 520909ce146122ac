"""TiTok on scikit-learn's digits: an image as a line of eight codes.

    arvision train --config=configs/digits/titok.py --workdir=runs/digits/titok

8 × 8 px become 8 codes of 128; a vision transformer on patches of 2 × 2 px is
encoder and decoder.

Source: arXiv 2406.07550 (the later models, which give pixels). Deviations: as in
`tokenizer.py` beside this file.
"""

from arvision.configs import common
from arvision.configs.digits import tokenizer
from arvision.configs.titok import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.titok.Tokenizer')
  config.tokenizer = parts.titok(
    length=8,
    vocab_size=128,
    channels=12,
    encoder=(64, 3, 4),
    decoder=(64, 3, 4),
    grid=(4, 4),
    patch=2,
    image_channels=1,
    normalize=True,
  )
  for half in (config.tokenizer.encoder, config.tokenizer.decoder):
    half.unroll = 3  # all layers, see layers.stack.Stack
    half.std = half.width**-0.5
  tokenizer.recipe(config, l2=1.0)
  config.optim.learning_rate = 2e-3
  config.train.duration = common.block(epochs=60)
  return common.locked(config)
