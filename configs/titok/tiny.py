"""TiTok's generators at the size of a test, on scikit-learn's digits.

    arvision train --config=titok/tiny_tokenizer:L-32 \\
      --workdir=runs/titok/tiny_tokenizer_L-32
    arvision train --config=titok/tiny --workdir=runs/titok/tiny

`L-32` is a BERT and `S-128` a U-ViT over legacy codes, `BL-64` a U-ViT over those
of the later tokenizers.

Source: arXiv 2406.07550.
"""

from arvision.configs import common
from arvision.configs.titok import parts, tiny_tokenizer

_LINEAR = common.block(type='process.guidance.Linear', end=4.0, over=3)
_COSINE = common.block(
  type='process.guidance.PowerCosine', scale=6.9, power=3.0
)
SIZES = {
  'L-32': dict(make=parts.bert, codes='L-32', guidance=_LINEAR),
  'S-128': dict(make=parts.uvit, codes='L-32', guidance=_COSINE),
  'BL-64': dict(make=parts.uvit, codes='BL-64', guidance=_LINEAR),
}


def get_config(arg: str = 'L-32'):
  size = common.size(arg or 'L-32', SIZES)
  config = common.generator(
    tiny_tokenizer.get_config(size['codes']),
    f'runs/titok/tiny_tokenizer_{size["codes"]}',
  )
  size['make'](
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    hidden=64,
    steps=3,
    temperature=4.5,
    guidance=size['guidance'],
    **common.TINY,
  )
  return common.tiny(config)
