"""VAR on your own images at 64 px; sub-folders are the classes.

    arvision train --config=configs/var/folder.py --workdir=runs/var/folder \\
      --config.data.source.path=my/pictures

Train the tokenizer first (`folder_tokenizer.py`), with the same --config.data
flags. Sized for a thousand pictures and two CPU cores; more pictures want more
steps.

Cost: 9 minutes on two cores of an AMD EPYC.

Source: arXiv 2404.02905.
"""

from arvision.configs import common
from arvision.configs.var import folder_tokenizer, parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    folder_tokenizer.get_config(), 'runs/var/folder_tokenizer'
  )
  parts.var(
    config,
    scales=config.tokenizer.scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=None,
    depth=4,
    width=128,
    heads=4,
    gate=1e-1,
    dropout=0.2,
    guidance=1.0,
  )
  config.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.train = common.block(duration=common.block(steps=1000))
  config.optim = common.adamw(
    1e-3,
    common.cosine(0.02, steps=100),
    exempt=parts.NO_DECAY,
  )
  config.ema = (0.99,)
  common.neighbours(config)
  common.follow(config)
  return common.locked(config)
