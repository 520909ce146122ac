"""LlamaGen at the size of a test, on scikit-learn's digits.

    arvision train --config=llamagen/tiny_tokenizer --workdir=runs/llamagen/tiny_tokenizer
    arvision train --config=llamagen/tiny --workdir=runs/llamagen/tiny

`tiny:t2i` reads captions.

Source: arXiv 2406.06525.
"""

from arvision.configs import common
from arvision.configs.llamagen import parts, tiny_tokenizer

SIZES = ('B', 't2i')
_CAPTION = {'length': 4, 'channels': 8}


def get_config(arg: str = 'B'):
  kind = common.size(arg or 'B', dict(zip(SIZES, SIZES)))
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/llamagen/tiny_tokenizer'
  )
  sizes = {
    'grid': config.tokenizer.grid,
    'vocab_size': config.tokenizer.quantizer.vocab_size,
    'hidden': 64,
    **common.TINY,
  }
  if kind == 't2i':
    config.data.text = common.block(type='data.text.HashedWords', **_CAPTION)
    parts.llamagen_t2i(config, top_k=40, **_CAPTION, **sizes)
  else:
    parts.llamagen(config, classes=10, **sizes)
  return common.tiny(config)
