"""MaskGIT-r on scikit-learn's digits, sampled with ReCAP.

    arvision train --config=configs/maskgit/digits_tokenizer.py \\
      --workdir=runs/maskgit/digits_tokenizer
    arvision train --config=configs/recap/digits.py --workdir=runs/recap/digits

A U-ViT over sixteen codes, in eight steps: the first two and then every second one
are full passes.

Source: arXiv 2505.19089, at a size for 8 × 8 px. Deviations: samples are guided.
"""

from arvision.configs import common
from arvision.configs.maskgit import digits_tokenizer
from arvision.configs.recap import parts
from arvision.configs.titok.parts import MASKED_OPTIM


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/maskgit/digits_tokenizer'
  )
  parts.maskgit(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=384,
    steps=8,
    full_steps=2,
    noise=2.0,
    dropout=0.1,
  )
  config.sampler.guidance.scale = 1.5
  return common.digits(config, epochs=60, **MASKED_OPTIM)
