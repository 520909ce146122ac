"""CTF at the size of a test, on scikit-learn's digits.

    arvision train --config=llamagen/tiny_tokenizer --workdir=runs/llamagen/tiny_tokenizer
    arvision train --config=ctf/tiny_tokenizer --workdir=runs/ctf/tiny_tokenizer
    arvision train --config=ctf/tiny --workdir=runs/ctf/tiny

Source: arXiv 2503.16194.
"""

from arvision.configs import common
from arvision.configs.ctf import parts, tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/ctf/tiny_tokenizer'
  )
  parts.ctf(config, classes=10, hidden=64, **common.TINY)
  return common.tiny(config)
