"""HMAR at the size of a test, on scikit-learn's digits.

    arvision train --config=var/tiny_tokenizer --workdir=runs/var/tiny_tokenizer
    arvision train --config=hmar/tiny:nsp --workdir=runs/hmar/tiny_nsp
    arvision train --config=hmar/tiny --workdir=runs/hmar/tiny \\
      --init_from=runs/hmar/tiny_nsp --init_partial

Source: arXiv 2506.04421.
"""

from arvision.configs import common
from arvision.configs.hmar import parts
from arvision.configs.var import tiny_tokenizer

SIZES = ('', 'nsp')


def get_config(arg: str = ''):
  first = common.size(arg, {'': False, 'nsp': True})
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/var/tiny_tokenizer'
  )
  scales = config.tokenizer.scales
  build, more = parts.hmar, {'passes': parts.passes(scales)}
  if first:
    build, more = parts.next_scale, {}
  build(
    config,
    scales=scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    last=1,
    gate=0.1,
    guidance=1.7,
    top_k=40,
    top_p=0.99,
    **common.TINY,
    **more,
  )
  return common.tiny(config)
