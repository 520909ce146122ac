"""NFIG at the size of a test, on scikit-learn's digits.

    arvision train --config=nfig/tiny_tokenizer --workdir=runs/nfig/tiny_tokenizer
    arvision train --config=nfig/tiny --workdir=runs/nfig/tiny

Source: arXiv 2503.07076.
"""

from arvision.configs import common
from arvision.configs.nfig import parts, tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/nfig/tiny_tokenizer'
  )
  parts.nfig(config, classes=10, gate=0.1, top_k=40, **common.TINY)
  return common.tiny(config)
