"""SMDM on scikit-learn's digits, in CPU minutes.

    arvision train --config=configs/maskgit/digits_tokenizer.py \\
      --workdir=runs/maskgit/digits_tokenizer
    arvision train --config=configs/smdm/digits.py --workdir=runs/smdm/digits

Absorbing diffusion over sixteen codes, sampled by first hitting in sixteen calls. The
training loss is a bound of the negative log likelihood of a code; `arvision eval`
computes it on held-out digits, and the likelihood by the chain rule.

Source: arXiv 2410.18514, at a size for 8 × 8 px. Deviations: of the times of 64 images,
every one is in another 64th.
"""

from arvision.configs import common
from arvision.configs.maskgit import digits_tokenizer
from arvision.configs.smdm import parts
from arvision.configs.titok.parts import MASKED_OPTIM


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/maskgit/digits_tokenizer'
  )
  parts.smdm(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    guidance=1.5,
  )
  config.feed.group = 64
  return common.digits(config, epochs=60, **MASKED_OPTIM)
