"""A binary autoencoder of scikit-learn's digits, for ELM.

    arvision train --config=configs/elm/digits_tokenizer.py \\
      --workdir=runs/elm/digits_tokenizer

8 × 8 px become 4 × 4 tokens of 8 bits, which are sampled in training.

Source: arXiv 2410.16257. Deviations: no perceptual loss and no discriminator,
which need larger images.
"""

from arvision.configs import common
from arvision.configs.elm import parts
from arvision.configs.var import digits_tokenizer as var


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.elm.Tokenizer')
  config.tokenizer = parts.bae(
    grid=(4, 4),
    bits=8,
    ids=2,
    channels=16,
    image_channels=1,
    ch=32,
    ch_mult=(1,),
    res_blocks=2,
    patch=2,
    groups=8,
    attention=False,
  )
  var.recipe(config, l2=1.0)
  config.task.restart_after = 0
  return common.locked(config)
