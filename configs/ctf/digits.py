"""CTF on scikit-learn's digits: clusters one by one, then all codes at once.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/ctf/digits_tokenizer.py \\
      --workdir=runs/ctf/digits_tokenizer
    arvision train --config=configs/ctf/digits.py --workdir=runs/ctf/digits
    arvision sample --workdir=runs/ctf/digits

The last command samples both stages. `random` is trained over random clusters
(`ctf/digits_tokenizer:random`), CTF's control.

Cost: 1.5 minutes on two cores of an Intel Xeon.

Source: arXiv 2503.16194, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.ctf import digits_tokenizer, parts

SIZES = ('', 'random')
FAMILIES = {'CTF': ''}


def get_config(arg: str = ''):
  kind = common.size(arg, dict(zip(SIZES, SIZES)))
  suffix = f'_{kind}' if kind else ''
  config = common.generator(
    digits_tokenizer.get_config(kind), f'runs/ctf/digits_tokenizer{suffix}'
  )
  parts.ctf(
    config,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
    guidance=2.0,
  )
  return common.digits(config, epochs=50)
