"""NFIG on scikit-learn's digits: next-frequency prediction in CPU minutes.

    arvision train --config=configs/nfig/digits_tokenizer.py \\
      --workdir=runs/nfig/digits_tokenizer
    arvision train --config=configs/nfig/digits.py --workdir=runs/nfig/digits

Cost: 2.1 minutes on two cores of an Intel Xeon.

Source: arXiv 2503.07076, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.nfig import digits_tokenizer, parts
from arvision.configs.var.parts import NO_DECAY


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/nfig/digits_tokenizer'
  )
  parts.nfig(
    config,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    gate=1e-1,
    dropout=0.1,
    drop_path=0.1,
    guidance=1.0,
    top_k=0,
  )
  return common.digits(config, epochs=30, clip=2.0, exempt=NO_DECAY)
