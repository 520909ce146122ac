"""MaskGIT on scikit-learn's digits, in CPU minutes.

    arvision train --config=configs/digits/maskgit_vq.py \\
      --workdir=runs/digits/maskgit_vq
    arvision train --config=configs/digits/maskgit.py \\
      --workdir=runs/digits/maskgit

A BERT sees all sixteen codes at once, some of them hidden, and draws them in
eight steps, the surest first.

Source: arXiv 2202.04200, at a size for 8 × 8 px. Deviations: labels are dropped
and samples guided.
"""

from arvision.configs import common
from arvision.configs.digits import maskgit_vq, titok_uvit
from arvision.configs.maskgit import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(maskgit_vq.get_config(), 'runs/digits/maskgit_vq')
  parts.maskgit(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.vocab_size,
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
  titok_uvit.recipe(config)
  return common.locked(config)
