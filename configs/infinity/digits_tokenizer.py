"""A multi-scale tokenizer of bits for scikit-learn's digits, for Infinity.

    arvision train --config=configs/infinity/digits_tokenizer.py \\
      --workdir=runs/infinity/digits_tokenizer

8 × 8 px become 30 tokens of 8 bits on grids of side 1, 2, 3, 4. Squares of 2 × 2
px enter as channels, which keeps the convolutions on a 4 × 4 grid.

Source: arXiv 2412.04431 (quantiser). Deviations: no perceptual loss and no
discriminator, which need larger images.
"""

from arvision.configs import common
from arvision.configs.infinity import parts
from arvision.configs.var import digits_tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.infinity.Tokenizer')
  config.tokenizer = parts.multi_scale_bsq(
    scales=(1, 2, 3, 4),
    bits=8,
    image_channels=1,
    ch=32,
    ch_mult=(1,),
    res_blocks=1,
    pixels=2,
    groups=8,
  )
  digits_tokenizer.recipe(config, l2=2.0)
  config.task.restart_after = 0
  return common.locked(config)
