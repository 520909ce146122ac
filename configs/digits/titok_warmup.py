"""First stage of a legacy TiTok of scikit-learn's digits: codes for pixels.

    arvision train --config=configs/digits/maskgit_vq.py \\
      --workdir=runs/digits/maskgit_vq_few
    arvision train --config=configs/digits/titok_warmup.py \\
      --workdir=runs/digits/titok_warmup

Source: arXiv 2406.07550. Deviations: as in `titok.py` beside this file.
"""

from arvision.configs import common
from arvision.configs.digits import maskgit_vq, tokenizer
from arvision.configs.titok import parts


def get_config(arg: str = ''):
  del arg
  pixels = maskgit_vq.get_config('few').tokenizer
  config = common.new()
  config.release = common.block(type='importers.titok.Tokenizer')
  config.tokenizer = parts.legacy_titok(
    length=8,
    vocab_size=128,
    channels=12,
    encoder=(64, 3, 4),
    decoder=(64, 3, 4),
    grid=(4, 4),
    patch=2,
    image_channels=1,
    pixel_codes=pixels.vocab_size,
    pixel_channels=pixels.channels,
    pixel_decoder=pixels.decoder,
  )
  for half in (config.tokenizer.encoder, config.tokenizer.decoder):
    half.unroll = 3  # all layers, see layers.stack.Stack
    half.std = half.width**-0.5
  tokenizer.recipe(config, l2=0.0)
  parts.titok_warmup(config, pixels, 'runs/digits/maskgit_vq_few')
  config.task.restart_after = 50
  config.optim.learning_rate = 4e-3
  config.optim.decay.exempt = ('pixel_',)
  config.train.duration = common.block(epochs=22)
  return common.locked(config)
