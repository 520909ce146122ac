"""ELM at the size of a test, on scikit-learn's digits: two ids per token.

`mlm` fills masked tokens.

    arvision train --config=elm/tiny_tokenizer --workdir=runs/elm/tiny_tokenizer
    arvision train --config=elm/tiny --workdir=runs/elm/tiny

Source: arXiv 2410.16257.
"""

from arvision.configs import common
from arvision.configs.elm import parts, tiny_tokenizer

SIZES = {
  'ar': dict(make=parts.elm),
  'mlm': dict(make=parts.elm_mlm, steps=3),
}


def get_config(arg: str = 'ar'):
  size = dict(common.size(arg or 'ar', SIZES))
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/elm/tiny_tokenizer'
  )
  make = size.pop('make')
  make(
    config,
    grid=config.tokenizer.grid,
    parts=2,
    vocab_size=8,
    classes=10,
    hidden=64,
    top_k=6,
    **size,
    **common.TINY,
  )
  return common.tiny(config)
