"""VQ-Diffusion on scikit-learn's digits, in CPU minutes.

    arvision train --config=configs/maskgit/digits_tokenizer.py \\
      --workdir=runs/maskgit/digits_tokenizer
    arvision train --config=configs/vq_diffusion/digits.py \\
      --workdir=runs/vq_diffusion/digits

A transformer sees all sixteen codes, some masked and a few replaced, and samples
them in 50 steps from masked ones.

Source: arXiv 2111.14822, 2205.16007, at a size for 8 × 8 px. Deviations: the
tokenizer is MaskGIT's; MLPs are as wide as the rest; 50 times; dropout; a cosine
instead of a constant rate.
"""

from arvision.configs import common
from arvision.configs.maskgit import digits_tokenizer
from arvision.configs.titok.parts import MASKED_OPTIM
from arvision.configs.vq_diffusion import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/maskgit/digits_tokenizer'
  )
  parts.vq_diffusion(
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
    top_p=0.94,
  )
  return common.digits(config, epochs=60, **MASKED_OPTIM)
