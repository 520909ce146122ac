"""What `heads.py` and `orders.py` alone have, at the size of a test.

    arvision train --config=mar/tiny_tokenizer --workdir=runs/mar/tiny_tokenizer
    arvision train --config=ablations/tiny:flow --workdir=runs/ablations/tiny

`flow` is that of `heads.py`; `scale` and `masked` are those of `orders.py`, over
the codes of llamagen/tiny_tokenizer.
"""

from arvision.configs import common
from arvision.configs.ablations import heads, orders
from arvision.configs.llamagen import tiny as llamagen
from arvision.configs.mar import tiny as mar

SIZES = ('flow', 'scale', 'masked')


def get_config(arg: str = 'flow'):
  kind = common.size(arg or 'flow', dict(zip(SIZES, SIZES)))
  config = (mar if kind == 'flow' else llamagen).get_config().unlock()
  del config.release
  if kind == 'flow':
    heads.flow(config)
  else:
    orders.CHANGES[kind](config)
  return common.locked(config)
