"""VQ-Diffusion's tokenizer at the size of a test, on scikit-learn's digits.

    arvision train --config=vq_diffusion/tiny_tokenizer \\
      --workdir=runs/vq_diffusion/tiny_tokenizer

Source: arXiv 2012.09841 (VQGAN).
"""

from arvision.configs import common
from arvision.configs.vq_diffusion import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.tokenizer = parts.vqgan(
    grid=(4, 4),
    vocab_size=64,
    channels=8,
    ch=8,
    ch_mult=(1, 2),
    res_blocks=1,
    z_channels=8,
    image_channels=1,
  )
  return common.tiny(config)
