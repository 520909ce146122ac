"""MaskGIT's tokenizer on scikit-learn's digits, for RAR, MaskGIT and TiTok.

    arvision train --config=configs/maskgit/digits_tokenizer.py \\
      --workdir=runs/maskgit/digits_tokenizer

8 × 8 px become 4 × 4 codes of 128; `:few` gives codes of 16, which a legacy TiTok
can predict from an image (titok/digits_tokenizer.py).

Cost: 0.6 minutes on two cores of an AMD EPYC.

Source: arXiv 2202.04200. Deviations: squares of 2 × 2 px enter as channels, no
perceptual loss and no discriminator; dead codes are restarted.
"""

from arvision.configs import common
from arvision.configs.maskgit import parts
from arvision.configs.var import digits_tokenizer as var

SIZES = {'': 128, 'few': 16}


def get_config(arg: str = ''):
  vocab_size = common.size(arg, SIZES)
  config = common.new()
  config.release = common.block(type='importers.maskgit.Tokenizer')
  config.tokenizer = parts.maskgit_vq(
    grid=(4, 4),
    vocab_size=vocab_size,
    channels=16,
    ch=32,
    ch_mult=(1,),
    res_blocks=1,
    groups=8,
    patch=2,
    image_channels=1,
    entropy=0.0,
  )
  var.recipe(config, l2=2.0)
  return common.locked(config)
