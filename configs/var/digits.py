"""VAR on scikit-learn's digits: next-scale prediction in CPU minutes.

    arvision train --config=configs/var/digits_tokenizer.py \\
      --workdir=runs/var/digits_tokenizer
    arvision train --config=configs/var/digits.py --workdir=runs/var/digits

Cost: 2.1 minutes on two cores of an AMD EPYC.

Source: arXiv 2404.02905, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.var import digits_tokenizer, parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/var/digits_tokenizer'
  )
  parts.var(
    config,
    scales=config.tokenizer.scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    gate=1e-1,
    dropout=0.1,
    drop_path=0.1,
    guidance=1.0,
  )
  common.follow(config)
  return common.digits(config, epochs=30, clip=2.0, exempt=parts.NO_DECAY)
