"""M-VAR on scikit-learn's digits: attention in a scale, Mamba-2 between scales.

    arvision train --config=configs/var/digits_tokenizer.py \\
      --workdir=runs/var/digits_tokenizer
    arvision train --config=configs/mvar/digits.py --workdir=runs/mvar/digits

The tokenizer is that of VAR's digits.

Source: arXiv 2411.10433, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.mvar import parts
from arvision.configs.var import digits_tokenizer
from arvision.configs.var import parts as var_parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/var/digits_tokenizer'
  )
  parts.mvar(
    config,
    scales=config.tokenizer.scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    state=16,
    head=32,
    gate=1e-1,
    dropout=0.1,
    drop_path=0.1,
    guidance=1.0,
  )
  return common.digits(config, epochs=30, clip=2.0, exempt=var_parts.NO_DECAY)
