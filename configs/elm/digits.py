"""ELM on scikit-learn's digits: next-token prediction over two ids per token.

    arvision train --config=configs/elm/digits_tokenizer.py \\
      --workdir=runs/elm/digits_tokenizer
    arvision train --config=configs/elm/digits.py \\
      --workdir=runs/elm/digits

`configs/elm/digits.py:mlm` fills masked tokens instead, in ten steps.

Source: arXiv 2410.16257, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.elm import digits_tokenizer, parts

SIZES = {
  'ar': dict(make=parts.elm, epochs=50),
  'mlm': dict(make=parts.elm_mlm, epochs=100),
}


def get_config(arg: str = 'ar'):
  size = common.size(arg or 'ar', SIZES)
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/elm/digits_tokenizer'
  )
  size['make'](
    config,
    grid=(4, 4),
    parts=2,
    vocab_size=16,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
    guidance=3.0,
    top_k=8,
  )
  return common.digits(config, epochs=size['epochs'])
