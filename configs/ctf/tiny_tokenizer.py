"""CTF's clusters and fine stage at the size of a test, on scikit-learn's digits.

    arvision train --config=llamagen/tiny_tokenizer --workdir=runs/llamagen/tiny_tokenizer
    arvision train --config=ctf/tiny_tokenizer --workdir=runs/ctf/tiny_tokenizer

Source: arXiv 2503.16194.
"""

from arvision.configs import common
from arvision.configs.ctf import parts
from arvision.configs.llamagen import tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = tiny_tokenizer.get_config().unlock()
  parts.fine(
    config,
    teacher='runs/llamagen/tiny_tokenizer',
    clusters=8,
    guidance=1.5,
    classes=10,
    hidden=64,
    **common.TINY,
  )
  config = common.tiny(config).unlock()
  config.optim.trained.only = parts.FINE
  return common.locked(config)
