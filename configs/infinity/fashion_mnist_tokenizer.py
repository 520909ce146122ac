"""A multi-scale tokenizer of bits for Fashion-MNIST at 32 px.

    arvision train --config=infinity/fashion_mnist_tokenizer \\
      --workdir=runs/infinity/fashion_mnist_tokenizer

32 × 32 px become 103 tokens of 8 bits, on the grids and with the encoder and the
decoder of var/fashion_mnist_tokenizer.py.

Source: arXiv 2412.04431 (quantiser). Deviations: no perceptual loss and no
discriminator.
"""

from arvision.configs import common
from arvision.configs.infinity import parts
from arvision.configs.var import fashion_mnist_tokenizer as var


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.infinity.Tokenizer')
  config.tokenizer = parts.multi_scale_bsq(
    scales=(1, 2, 3, 5, 8),
    bits=8,
    image_channels=1,
    ch=64,
    ch_mult=(1,),
    res_blocks=1,
    pixels=4,
  )
  var.recipe(config)
  config.task.restart_after = 0  # there is no table of codes
  return common.locked(config)
