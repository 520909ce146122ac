"""ReCAP at the size of a test, on scikit-learn's digits.

    arvision train --config=maskgit/tiny_tokenizer --workdir=runs/maskgit/tiny_tokenizer
    arvision train --config=recap/tiny --workdir=runs/recap/tiny

`tiny:mar` is MAR, over the latents of mar/tiny_tokenizer.

Source: arXiv 2505.19089.
"""

from arvision.configs import common
from arvision.configs.mar import tiny_tokenizer as mar
from arvision.configs.maskgit import tiny_tokenizer as maskgit
from arvision.configs.recap import parts

SIZES = ('maskgit', 'mar')


def get_config(arg: str = 'maskgit'):
  kind = arg or 'maskgit'
  tokenizer = common.size(kind, {'maskgit': maskgit, 'mar': mar})
  config = common.generator(
    tokenizer.get_config(), f'runs/{kind}/tiny_tokenizer'
  )
  shared = {
    'grid': config.tokenizer.grid,
    'classes': 10,
    'hidden': 64,
    'steps': 5,
    'full_steps': 1,
    **common.TINY,
  }
  if kind == 'maskgit':
    vocab_size = config.tokenizer.quantizer.vocab_size
    parts.maskgit(config, vocab_size=vocab_size, **shared)
  else:
    parts.mar_with_reuse(
      config,
      channels=config.tokenizer.quantizer.channels,
      second_depth=1,
      head_width=32,
      head_depth=2,
      prefix=4,
      diffusion_steps=3,
      **shared,
    )
  return common.tiny(config)
