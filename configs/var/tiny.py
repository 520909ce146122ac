"""VAR at the size of a test, on scikit-learn's digits.

    arvision train --config=var/tiny_tokenizer --workdir=runs/var/tiny_tokenizer
    arvision train --config=var/tiny --workdir=runs/var/tiny

`tiny:d36` has one adaLN for all blocks, as d36 and d60 have.

Source: arXiv 2404.02905.
"""

from arvision.configs import common
from arvision.configs.var import parts, tiny_tokenizer

SIZES = {'d16': {}, 'd36': {'shared_adaln': True}}


def get_config(arg: str = 'd16'):
  options = common.size(arg or 'd16', SIZES)
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/var/tiny_tokenizer'
  )
  parts.var(
    config,
    scales=config.tokenizer.scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    gate=0.1,
    top_k=40,
    top_p=0.96,
    **options,
    **common.TINY,
  )
  return common.tiny(config)
