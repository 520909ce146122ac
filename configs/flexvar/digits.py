"""FlexVAR on scikit-learn's digits: next scale by resampling the last one.

    arvision train --config=configs/flexvar/digits_tokenizer.py \\
      --workdir=runs/flexvar/digits_tokenizer
    arvision train --config=configs/flexvar/digits.py \\
      --workdir=runs/flexvar/digits

One of the sides 2 and 3 is left out in half of the steps of training. Sampling
uses all four; other lists work too, for example 1, 2, 4:

    arvision sample --workdir=runs/flexvar/digits \\
      --config.sampler.layout.scales='(1, 2, 4)' \\
      --config.sampler.guidance.shares='(0.0, 0.5, 1.0)'

Cost: 2.4 minutes on two cores of an AMD EPYC.

Source: arXiv 2502.20313, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.flexvar import digits_tokenizer, parts
from arvision.configs.var import parts as var_parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/flexvar/digits_tokenizer'
  )
  parts.flexvar(
    config,
    scales=config.tokenizer.scales,
    drawn=config.tokenizer.scales,
    groups=(((1,), 1), ((2, 3), 1), ((4,), 1)),
    usual_share=0.5,
    budget=30,
    guidance=1.0,
    top_k=0,
    top_p=1.0,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    gate=1e-1,
    dropout=0.1,
    drop_path=0.1,
  )
  config.feed.thin = ()
  return common.digits(config, epochs=30, clip=2.0, exempt=var_parts.NO_DECAY)
