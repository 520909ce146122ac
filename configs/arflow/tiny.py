"""ARFlow at the size of a test, on scikit-learn's digits.

    arvision train --config=acdit/tiny_tokenizer \\
      --workdir=runs/acdit/tiny_tokenizer
    arvision train --config=arflow/tiny --workdir=runs/arflow/tiny

Source: arXiv 2501.16085.
"""

from arvision.configs import common
from arvision.configs.acdit import tiny_tokenizer
from arvision.configs.arflow import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/acdit/tiny_tokenizer'
  )
  parts.arflow(
    config,
    grid=config.tokenizer.grid,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    images=3,
    guided=3,
    steps=3,
    guidance=2.0,
    **common.TINY,
  )
  return common.tiny(config)
