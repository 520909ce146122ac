"""VQ-DDM at the size of a test, on scikit-learn's digits.

    arvision train --config=vq_diffusion/tiny_tokenizer \\
      --workdir=runs/vq_diffusion/tiny_tokenizer
    arvision train --config=vq_ddm/tiny --workdir=runs/vq_ddm/tiny

Source: arXiv 2112.01799.
"""

from arvision.configs import common
from arvision.configs.vq_ddm import parts
from arvision.configs.vq_diffusion import tiny_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/vq_diffusion/tiny_tokenizer'
  )
  parts.vq_ddm(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    steps=4,
    hidden=64,
    **common.TINY,
  )
  return common.tiny(config)
