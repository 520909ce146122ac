"""ACDiT's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=acdit/tiny_tokenizer --workdir=runs/acdit/tiny_tokenizer

Source: arXiv 2112.10752 (kl-f8).
"""

from arvision.configs import common
from arvision.configs.mar import tiny_tokenizer


def get_config(arg: str = ''):
  config = tiny_tokenizer.get_config(arg).unlock()
  config.tokenizer.encoder.attention_levels = ()
  return common.tiny(config)
