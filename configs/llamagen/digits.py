"""LlamaGen on scikit-learn's digits: next-token prediction in CPU minutes.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/llamagen/digits.py \\
      --workdir=runs/llamagen/digits

docs/families.md has what `arvision eval` says of it.

Cost: 1.8 minutes on two cores of an AMD EPYC.

Source: arXiv 2406.06525, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.llamagen import digits_tokenizer, parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/llamagen/digits_tokenizer'
  )
  parts.llamagen(
    config,
    grid=(4, 4),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
    guidance=2.0,
  )
  recipe(config)
  return common.locked(config)


def recipe(config):
  """How it is trained, with classes or with captions."""
  config.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=50))
  config.optim = common.adamw(
    2e-3,
    common.cosine(0.05, epochs=5),
    clip=1.0,
  )
  config.ema = (0.99,)
