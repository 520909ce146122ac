"""LlamaGen on avatars at 64 px and their captions.

    arvision train --config=configs/llamagen/avatars_t2i.py \\
      --workdir=runs/llamagen/avatars_t2i --config.data.source.path=my/avatars
    arvision sample --workdir=runs/llamagen/avatars_t2i --captions \\
      'a face with red hair' 'a face with red hair and glasses'

Train the tokenizer first (`avatars_tokenizer.py`). Every word is a fixed vector of
random numbers, so no text encoder is needed.

Source: arXiv 2406.06525, at a size for two CPU cores.
"""

from arvision.configs import common
from arvision.configs.llamagen import avatars, avatars_tokenizer, parts

# Words of the longest caption of `launch/avatars.sh`.
WORDS = 28


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    avatars_tokenizer.get_config(), 'runs/llamagen/avatars_tokenizer'
  )
  config.data.text = common.block(
    type='data.text.HashedWords', length=WORDS, channels=64
  )
  parts.llamagen_t2i(
    config,
    length=WORDS,
    channels=64,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    guidance=2.0,
    top_k=0,
    **avatars.SIZES,
  )
  avatars.recipe(config)
  return common.locked(config)
