"""VAR on colour emoji at 64 px, with the group of an emoji as class.

    arvision train --config=configs/var/emoji.py --workdir=runs/var/emoji

Train the tokenizer first (`emoji_tokenizer.py`). Made for a GPU.

Source: arXiv 2404.02905.
"""

from arvision.configs import common
from arvision.configs.var import emoji_tokenizer, parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    emoji_tokenizer.get_config(), 'runs/var/emoji_tokenizer'
  )
  parts.var(
    config,
    scales=config.tokenizer.scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=None,
    depth=6,
    width=256,
    heads=4,
    gate=1e-1,
    dropout=0.1,
    guidance=1.0,
  )
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=150))
  config.optim = common.adamw(
    1e-3,
    common.cosine(0.02, steps=100),
    exempt=parts.NO_DECAY,
  )
  return common.locked(config)
