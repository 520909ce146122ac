"""TiTok's tokenizers at the size of a test, on scikit-learn's digits.

    arvision train --config=titok/tiny_tokenizer --workdir=runs/titok/tiny_tokenizer

`L-32` gives codes of another tokenizer, `BL-64` pixels, `BL-64_kl` pixels of
latents.

Source: arXiv 2406.07550.
"""

from arvision.configs import common
from arvision.configs.maskgit import tiny_tokenizer as maskgit
from arvision.configs.titok import parts

SIZES = ('L-32', 'BL-64', 'BL-64_kl')


def get_config(arg: str = 'L-32'):
  kind = common.size(arg or 'L-32', dict(zip(SIZES, SIZES)))
  sizes = {
    'length': 4,
    'vocab_size': 64,
    'channels': 8,
    'encoder': common.TINY,
    'decoder': common.TINY,
    'grid': (4, 4),
    'patch': 2,
    'image_channels': 1,
  }
  config = common.new()
  config.release = common.block(type='importers.titok.Tokenizer')
  if kind == 'BL-64_kl':
    sizes['vocab_size'] = 0
  if kind.startswith('BL'):
    config.tokenizer = parts.titok(**sizes)
  else:
    pixels = maskgit.get_config().tokenizer
    config.tokenizer = parts.legacy_titok(
      pixels=pixels,
      **sizes,
    )
  return common.tiny(config)
