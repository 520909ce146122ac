"""VQ-DDM on scikit-learn's digits, in CPU minutes.

    arvision train --config=configs/maskgit/digits_tokenizer.py \\
      --workdir=runs/maskgit/digits_tokenizer
    arvision train --config=configs/vq_ddm/digits.py --workdir=runs/vq_ddm/digits

A transformer sees sixteen codes, some of them replaced by random ones, and samples
them in 50 steps from random ones.

Source: arXiv 2112.01799, at a size for 8 × 8 px. Deviations: as in imagenet256, and
the tokenizer is MaskGIT's; 50 times; dropout, dropped labels and guidance.
"""

from arvision.configs import common
from arvision.configs.maskgit import digits_tokenizer
from arvision.configs.titok.parts import MASKED_OPTIM
from arvision.configs.vq_ddm import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/maskgit/digits_tokenizer'
  )
  parts.vq_ddm(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    null_row=True,
    depth=4,
    width=96,
    heads=4,
    hidden=96,
    steps=50,
    dropout=0.1,
    drop=0.1,
    guidance=1.5,
  )
  return common.digits(config, epochs=60, **MASKED_OPTIM)
