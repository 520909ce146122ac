"""E-CAR at the size of a test, on scikit-learn's digits.

    arvision train --config=mar/tiny_tokenizer --workdir=runs/mar/tiny_tokenizer
    arvision train --config=ecar/tiny --workdir=runs/ecar/tiny

`tiny:one` has one stage: plain flow matching.

Source: arXiv 2412.14170, a variant: see parts.py.
"""

from arvision.configs import common
from arvision.configs.ecar import parts
from arvision.configs.flowar import parts as flowar
from arvision.configs.mar import tiny_tokenizer

SIZES = {'stages': (1, 2, 4), 'one': (4,)}


def get_config(arg: str = 'stages'):
  scales = common.size(arg or 'stages', SIZES)
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/mar/tiny_tokenizer'
  )
  parts.ecar(
    config,
    scales=scales,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    second_depth=1,
    head=flowar.SELF,
    head_width=32,
    head_depth=2,
    head_heads=2,
    steps=3,
    guidance=2.0,
    **common.TINY,
  )
  return common.tiny(config)
