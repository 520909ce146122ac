"""Token-Shuffle at the size of a test, on scikit-learn's digits.

    arvision train --config=llamagen/tiny_tokenizer --workdir=runs/llamagen/tiny_tokenizer
    arvision train --config=token_shuffle/tiny --workdir=runs/token_shuffle/tiny

`tiny:t2i` reads captions.

Source: arXiv 2504.17789.
"""

from arvision.configs import common
from arvision.configs.llamagen import tiny_tokenizer
from arvision.configs.token_shuffle import parts

SIZES = ('class', 't2i')
_CAPTION = {'length': 4, 'channels': 8}


def get_config(arg: str = 'class'):
  kind = common.size(arg or 'class', dict(zip(SIZES, SIZES)))
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/llamagen/tiny_tokenizer'
  )
  if kind == 't2i':
    config.data.text = common.block(type='data.text.HashedWords', **_CAPTION)
    condition = {'captions': True, 'top_k': 40, **_CAPTION}
  else:
    condition = {'classes': 10}
  parts.token_shuffle(
    config, window=2, hidden=64, guidance=2.0, **condition, **common.TINY
  )
  return common.tiny(config)
