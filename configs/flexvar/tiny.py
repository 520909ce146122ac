"""FlexVAR at the size of a test, on scikit-learn's digits.

    arvision train --config=flexvar/tiny_tokenizer --workdir=runs/flexvar/tiny_tokenizer
    arvision train --config=flexvar/tiny --workdir=runs/flexvar/tiny

Source: arXiv 2502.20313.
"""

from arvision.configs import common
from arvision.configs.flexvar import parts, tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/flexvar/tiny_tokenizer'
  )
  parts.flexvar(
    config,
    scales=config.tokenizer.scales,
    drawn=config.tokenizer.scales,
    groups=(((1,), 1), ((2, 3), 1), ((4,), 1)),
    budget=29,
    best=(3,),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    gate=0.1,
    top_k=40,
    **common.TINY,
  )
  return common.tiny(config)
