"""NFIG's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=nfig/tiny_tokenizer --workdir=runs/nfig/tiny_tokenizer

Source: arXiv 2503.07076.
"""

from arvision.configs import common
from arvision.configs.nfig import parts
from arvision.configs.var import tiny_tokenizer


def get_config(arg: str = ''):
  return common.locked(parts.banded(tiny_tokenizer.get_config(arg)))
