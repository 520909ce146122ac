"""LlamaGen on avatars at 64 px, with the style as class.

    arvision train --config=configs/llamagen/avatars.py \\
      --workdir=runs/llamagen/avatars --config.data.source.path=my/avatars

Train the tokenizer first (`avatars_tokenizer.py`).

Source: arXiv 2406.06525, at a size for two CPU cores.
"""

from arvision.configs import common
from arvision.configs.llamagen import avatars_tokenizer, parts

SIZES = {'depth': 6, 'width': 192, 'heads': 6, 'hidden': 512, 'dropout': 0.0}


def recipe(config) -> None:
  """How both generators of avatars are trained."""
  config.data.batch_size = 32
  config.train = common.block(duration=common.block(epochs=10))
  config.evals.every = common.block(fraction=0.25)  # 2,000 pictures take long
  config.optim = common.adamw(1e-3, common.cosine(0.02, steps=200), clip=1.0)
  config.ema = (0.999,)
  common.neighbours(config)


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    avatars_tokenizer.get_config(), 'runs/llamagen/avatars_tokenizer'
  )
  parts.llamagen(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=None,
    guidance=1.5,
    **SIZES,
  )
  recipe(config)
  config.evals.likelihood = common.block(type='evals.likelihood.Likelihood')
  return common.locked(config)
