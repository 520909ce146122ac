"""TiTok's masked generator on scikit-learn's digits, in CPU minutes.

    arvision train --config=configs/titok/digits_tokenizer.py \\
      --workdir=runs/titok/digits_tokenizer
    arvision train --config=configs/titok/digits.py \\
      --workdir=runs/titok/digits

A U-ViT sees all eight codes at once, some of them hidden, and draws them in four
steps. `digits.py:legacy` draws those of a legacy TiTok.

Cost: 1.9 minutes on two cores of an AMD EPYC.

Source: arXiv 2406.07550, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.titok import digits_tokenizer, parts

SIZES = ('', 'legacy')
FAMILIES = {'TiTok': '', 'TiTok, legacy': 'legacy'}


def get_config(arg: str = ''):
  tokenizer = digits_tokenizer.get_config(
    common.size(arg, dict(zip(SIZES, SIZES)))
  )
  workdir = 'runs/titok/digits_tokenizer' + (f'_{arg}' if arg else '')
  config = common.generator(tokenizer, workdir)
  parts.uvit(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=384,
    steps=4,
    temperature=2.0,
    guidance=common.block(type='process.guidance.Linear', end=2.0, over=4),
    dropout=0.1,
  )
  recipe(config)
  return common.locked(config)


def recipe(config):
  """How masked generators of the digits are trained."""
  config.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=60))
  config.optim = common.adamw(
    2e-3,
    common.cosine(0.05, epochs=5),
    weight_decay=0.03,
    b2=0.96,
    clip=1.0,
  )
  config.ema = (0.99,)
