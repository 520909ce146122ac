"""FlowAR at the size of a test, on scikit-learn's digits.

    arvision train --config=mar/tiny_tokenizer --workdir=runs/mar/tiny_tokenizer
    arvision train --config=flowar/tiny --workdir=runs/flowar/tiny

`tiny:L` has the flow head of the larger models, which also attends to z.

Source: arXiv 2412.15205.
"""

from arvision.configs import common
from arvision.configs.flowar import parts
from arvision.configs.mar import tiny_tokenizer

SIZES = {'S': parts.SELF, 'L': parts.CROSS}


def get_config(arg: str = 'S'):
  head = common.size(arg or 'S', SIZES)
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/mar/tiny_tokenizer'
  )
  scales = (1, 2, 4)
  parts.pyramid(config.tokenizer, scales)
  parts.flowar(
    config,
    scales=scales,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    second_depth=1,
    head=head,
    head_width=32,
    head_depth=2,
    head_heads=2,
    steps=3,
    **common.TINY,
  )
  return common.tiny(config)
