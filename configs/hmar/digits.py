"""HMAR on scikit-learn's digits: next scales without a cache, some refined.

    arvision train --config=configs/var/digits_tokenizer.py \\
      --workdir=runs/var/digits_tokenizer
    arvision train --config=configs/hmar/digits.py:nsp \\
      --workdir=runs/hmar/digits_nsp
    arvision train --config=configs/hmar/digits.py --workdir=runs/hmar/digits \\
      --init_from=runs/hmar/digits_nsp --init_partial

The first stage trains next-scale prediction, the second the end for masked
tokens.

Source: arXiv 2506.04421, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.hmar import parts
from arvision.configs.var import digits_tokenizer

SIZES = ('', 'nsp')
FAMILIES = {'HMAR': ''}
# Variant -> the one whose weights it starts with.
STARTS = {'': 'nsp'}


def get_config(arg: str = ''):
  first = common.size(arg, {'': False, 'nsp': True})
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/var/digits_tokenizer'
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
    depth=4,
    width=96,
    heads=4,
    last=2,
    gate=1e-1,
    dropout=0.1,
    drop_path=0.1,
    guidance=1.0,
    **more,
  )
  epochs = 30 if first else 15
  config = common.digits(
    config, epochs=epochs, clip=2.0, exempt=parts.NO_DECAY
  ).unlock()
  if not first:
    parts.second_stage(config.optim)
  return common.locked(config)
