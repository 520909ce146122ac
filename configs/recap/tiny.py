"""ReCAP at the size of a test, on scikit-learn's digits.

    arvision train --config=maskgit/tiny_tokenizer --workdir=runs/maskgit/tiny_tokenizer
    arvision train --config=recap/tiny --workdir=runs/recap/tiny

`tiny:mar` is mar/tiny with ReCAP's sampler.

Source: arXiv 2505.19089.
"""

from arvision.configs import common
from arvision.configs.mar import tiny as mar
from arvision.configs.maskgit import tiny_tokenizer
from arvision.configs.recap import parts

SIZES = ('maskgit', 'mar')


def get_config(arg: str = 'maskgit'):
  kind = arg or 'maskgit'
  common.size(kind, dict.fromkeys(SIZES))
  if kind == 'mar':
    config = mar.get_config().unlock()
    config.sampler.steps = 5
    parts.reuse_in_mar(config, full_steps=1)
    return common.locked(config)
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/maskgit/tiny_tokenizer'
  )
  parts.maskgit(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    hidden=64,
    steps=5,
    full_steps=1,
    **common.TINY,
  )
  return common.tiny(config)
