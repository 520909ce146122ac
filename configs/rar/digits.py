"""RAR on scikit-learn's digits: next token in random orders, in CPU minutes.

    arvision train --config=configs/maskgit/digits_tokenizer.py \\
      --workdir=runs/maskgit/digits_tokenizer
    arvision train --config=configs/rar/digits.py --workdir=runs/rar/digits

Cost: 1.6 minutes on two cores of an AMD EPYC.

Source: arXiv 2411.00776, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.maskgit import digits_tokenizer
from arvision.configs.rar import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/maskgit/digits_tokenizer'
  )
  parts.rar(
    config,
    grid=(4, 4),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=384,
    dropout=0.1,
    guidance=4.0,
    power=1.0,
  )
  config.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=25))
  config.optim = common.adamw(
    2e-3,
    common.cosine(0.05, epochs=5),
    clip=1.0,
    exempt=parts.NO_DECAY,
  )
  config.ema = (0.99,)
  return common.locked(config)
