"""M-VAR at the size of a test, on scikit-learn's digits.

    arvision train --config=var/tiny_tokenizer --workdir=runs/var/tiny_tokenizer
    arvision train --config=mvar/tiny --workdir=runs/mvar/tiny

`tiny:d16` has no L2 norm of queries and keys, as d16 and d20 have none.

Source: arXiv 2411.10433.
"""

from arvision.configs import common
from arvision.configs.mvar import parts
from arvision.configs.var import tiny_tokenizer

SIZES = {'d32': {}, 'd16': {'l2_norm': False}}


def get_config(arg: str = 'd32'):
  options = common.size(arg or 'd32', SIZES)
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/var/tiny_tokenizer'
  )
  parts.mvar(
    config,
    scales=config.tokenizer.scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    gate=0.1,
    top_k=40,
    top_p=0.96,
    state=8,
    head=16,
    **options,
    **common.TINY,
  )
  return common.tiny(config)
