"""TiTok on scikit-learn's digits: an image as a line of eight codes.

    arvision train --config=configs/titok/digits_tokenizer.py \\
      --workdir=runs/titok/digits_tokenizer

8 × 8 px become 8 codes of 128; a vision transformer on patches of 2 × 2 px is
encoder and decoder. `legacy` is the tokenizer as it was first published, in two
stages. In the first it predicts the codes of MaskGIT's tokenizer; the second
trains the way from these codes to pixels, and encoder and codes stay as they are:

    arvision train --config=configs/maskgit/digits_tokenizer.py:few \\
      --workdir=runs/maskgit/digits_tokenizer_few
    arvision train --config=configs/titok/digits_tokenizer.py:legacy_warmup \\
      --workdir=runs/titok/digits_tokenizer_legacy_warmup
    arvision train --config=configs/titok/digits_tokenizer.py:legacy \\
      --workdir=runs/titok/digits_tokenizer_legacy \\
      --init_from=runs/titok/digits_tokenizer_legacy_warmup

Cost: 2.8 minutes on two cores of an AMD EPYC; `legacy_warmup` 1.5, `legacy` 1.2.

Source: arXiv 2406.07550 (the later models, which give pixels; `legacy`: L-32,
B-64, S-128). Deviations: as in var/digits_tokenizer.py.
"""

from arvision.configs import common
from arvision.configs.maskgit import digits_tokenizer as maskgit
from arvision.configs.titok import parts
from arvision.configs.var import digits_tokenizer as var

SIZE = dict(width=64, depth=3, heads=4)


def get_config(arg: str = ''):
  return common.size(arg, SIZES)()


def _later():
  config = _new(parts.titok, normalize=True)
  var.recipe(config, l2=1.0)
  config.optim.learning_rate = 2e-3
  config.train.duration = common.block(epochs=60)
  return common.locked(config)


def _warmup():
  pixels = maskgit.get_config('few').tokenizer
  config = _new(
    parts.legacy_titok,
    pixels=pixels,
  )
  var.recipe(config, l2=0.0)
  parts.titok_warmup(config, pixels, 'runs/maskgit/digits_tokenizer_few')
  config.task.restart_after = 50
  config.optim.learning_rate = 4e-3
  config.optim.decay.exempt = ('pixel_',)
  config.train.duration = common.block(epochs=22)
  return common.locked(config)


def _legacy():
  config = _warmup().unlock()
  del config.frozen
  var.recipe(config, l2=1.0)
  config.task.restart_after = 0
  config.optim.learning_rate = 1e-3
  config.optim.decay.exempt = ()
  config.optim.trained.without = parts.WARMED_UP
  config.train.duration = common.block(epochs=16)
  return common.locked(config)


def _new(make, **more):
  config = common.new()
  config.release = common.block(type='importers.titok.Tokenizer')
  config.tokenizer = make(
    length=8,
    vocab_size=128,
    channels=12,
    encoder=SIZE,
    decoder=SIZE,
    grid=(4, 4),
    patch=2,
    image_channels=1,
    **more,
  )
  for half in (config.tokenizer.encoder, config.tokenizer.decoder):
    half.unroll = 3  # all layers, see layers.stack.Stack
    half.std = half.width**-0.5
  return config


SIZES = {'': _later, 'legacy': _legacy, 'legacy_warmup': _warmup}
