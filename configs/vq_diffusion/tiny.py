"""VQ-Diffusion at the size of a test, on scikit-learn's digits.

`text` reads captions, has MLPs without convolutions, and samples with the purity
prior.

    arvision train --config=vq_diffusion/tiny_tokenizer \\
      --workdir=runs/vq_diffusion/tiny_tokenizer
    arvision train --config=vq_diffusion/tiny --workdir=runs/vq_diffusion/tiny

Source: arXiv 2111.14822.
"""

from arvision.configs import common
from arvision.configs.vq_diffusion import parts, tiny_tokenizer

CAPTION = {'length': 4, 'channels': 8}
SIZES = {
  'class': dict(classes=10),
  'text': dict(caption=CAPTION, convolutions=False, drop=0.1),
}


def get_config(arg: str = 'class'):
  arg = arg or 'class'
  size = common.size(arg, SIZES)
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/vq_diffusion/tiny_tokenizer'
  )
  parts.vq_diffusion(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    steps=4,
    hidden=64,
    **common.TINY,
    **size,
  )
  if arg == 'text':
    config.data.text = common.block(type='data.text.HashedWords', **CAPTION)
    parts.high_quality(config, counts=(4, 4, 3))
  return common.tiny(config)
