"""MEAP on ImageNet 256 × 256, with LlamaGen's transformers.

    arvision encode --config=configs/llamagen/tokenizer.py \\
      --workdir=runs/llamagen-tokenizer --views=ten_crop --output=DIR
    arvision train --config=configs/meap/imagenet256.py:B --workdir=runs/meap-b

LlamaGen of which 15 % of the input codes are masked in training, 38 of 255; the loss
is that of all codes, and sampling is LlamaGen's.

The paper is about text; there is no published figure of images.

Deviations: codes of images instead of text, sizes and recipe of
llamagen/imagenet256; every example has masks of its own, where the official code
masks the same places of all examples of a device's batch, chosen in turn by one
of 51 seeds, and never the last input.

Source: arXiv 2502.07490; scitix/MEAP.
"""

from arvision.configs import common
from arvision.configs.llamagen import imagenet256 as llamagen
from arvision.configs.llamagen import tokenizer
from arvision.configs.meap import parts

SIZES = {size: llamagen.SIZES[size] for size in ('B', 'L')}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/llamagen-tokenizer')
  parts.meap(
    config,
    grid=(16, 16),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  llamagen.recipe(config)
  return common.locked(config)
