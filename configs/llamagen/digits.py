"""LlamaGen on scikit-learn's digits: next-token prediction in CPU minutes.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/llamagen/digits.py \\
      --workdir=runs/llamagen/digits

docs/families.md has its metrics.

Cost: 1.8 minutes on two cores of an AMD EPYC.

Source: arXiv 2406.06525, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.llamagen import digits_tokenizer, parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/llamagen/digits_tokenizer'
  )
  parts.llamagen(
    config,
    grid=(4, 4),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
    guidance=2.0,
  )
  return common.digits(config, epochs=50)
