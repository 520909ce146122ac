"""MaskBit's tokenizer on scikit-learn's digits, in CPU minutes.

    arvision train --config=configs/maskbit/digits_tokenizer.py \\
      --workdir=runs/maskbit/digits_tokenizer

8 × 8 px become 4 × 4 tokens of 8 bits. Squares of 2 × 2 px enter as channels.

Source: arXiv 2409.16211. Deviations: no perceptual loss and no discriminator,
which need larger images.
"""

from arvision.configs import common
from arvision.configs.maskbit import parts
from arvision.configs.var import digits_tokenizer as var


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.maskbit.Tokenizer')
  config.tokenizer = parts.maskbit_tokenizer(
    quantizer=parts.lfq(8, extra_until=0.1),
    grid=(4, 4),
    ch=32,
    ch_mult=(1,),
    res_blocks=1,
    groups=8,
    patch=2,
    image_channels=1,
  )
  var.recipe(config, l2=2.0)
  config.task.restart_after = 0  # there is no table of codes
  return common.locked(config)
