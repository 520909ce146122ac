"""MaskGIT on scikit-learn's digits, in CPU minutes.

    arvision train --config=configs/maskgit/digits_tokenizer.py \\
      --workdir=runs/maskgit/digits_tokenizer
    arvision train --config=configs/maskgit/digits.py \\
      --workdir=runs/maskgit/digits

A BERT sees all sixteen codes at once, some of them hidden, and draws them in
eight steps, the surest first.

Cost: 2.0 minutes on two cores of an AMD EPYC.

Source: arXiv 2202.04200, at a size for 8 × 8 px. Deviations: labels are dropped
and samples guided.
"""

from arvision.configs import common
from arvision.configs.maskgit import digits_tokenizer, parts
from arvision.configs.titok import digits as titok


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
    temperature=2.0,
    dropout=0.1,
  )
  config.condition.drop = 0.1
  config.sampler.guidance.scale = 1.5
  titok.recipe(config)
  return common.locked(config)
