"""LlamaGen on scikit-learn's digits and their captions, in CPU minutes.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/llamagen/digits_t2i.py \\
      --workdir=runs/llamagen/digits_t2i
    arvision sample --workdir=runs/llamagen/digits_t2i \\
      --captions 'a handwritten digit 7' 'a three, no: a 5'

Every word is a fixed vector of random numbers, so no text encoder is needed.

Cost: 2.2 minutes on two cores of an AMD EPYC.

Source: arXiv 2406.06525, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.llamagen import digits, digits_tokenizer, parts

FAMILIES = {'LlamaGen, captions': ''}


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/llamagen/digits_tokenizer'
  )
  config.data.text = common.block(
    type='data.text.HashedWords', length=8, channels=32
  )
  parts.llamagen_t2i(
    config,
    length=8,
    channels=32,
    grid=(4, 4),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
    guidance=2.0,
    top_k=0,
  )
  digits.recipe(config)
  return common.locked(config)
