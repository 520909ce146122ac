"""One transformer over one tokenizer, in four orders of prediction.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/ablations/orders.py:token \\
      --workdir=runs/ablations/orders_token

`token` is next token (LlamaGen), `diagonal` next diagonal (NAR), `scale` next
scale where every scale is shown the one before it resampled (FlexVAR), `masked`
many tokens at once, the surest kept first (MaskGIT). Layers, width, schedule,
guidance and the tokenizer's weights are the same; of the four layers of `diagonal`
the last is that of its second branch. `launch/ablations.py` compares them.
"""

from arvision.configs import common
from arvision.configs.common import block
from arvision.configs.llamagen import digits_tokenizer, parts

_SCALES = (1, 2, 3, 4)
_STEPS = 8


def get_config(arg: str = 'token'):
  change = common.size(arg or 'token', CHANGES)
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/llamagen/digits_tokenizer'
  )
  parts.llamagen(
    config,
    grid=(4, 4),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
    guidance=2.0,
  )
  del config.release
  change(config)
  return common.digits(config, epochs=50)


def _token(config):
  del config  # as it is


def _diagonal(config):
  config.layout = block(type='layouts.grid.diagonals', height=4, width=4)
  config.backbone.depth = 3
  config.backbone.body = block(type='backbones.bodies.Branches', branches=2)
  config.head.branches = 2


def _scale(config):
  config.tokenizer.type = 'tokenizers.pyramid.Pyramid'
  config.tokenizer.scales = _SCALES
  del config.tokenizer.grid
  config.layout = block(type='layouts.scales.scales', scales=_SCALES)
  config.feed = block(type='feeds.resample.Resample', kind='bicubic')
  config.backbone.input = block(type='backbones.decoder.VectorInput')


def _masked(config):
  config.layout = block(type='layouts.grid.whole', height=4, width=4)
  config.feed = block(type='feeds.mask.RandomMask', unmasked_weight=0.0)
  config.backbone.input.extra = 1
  config.sampler.update(
    type='samplers.masked.Masked',
    steps=_STEPS,
    policy=block(type='process.masking.LikelyFirst', temperature=2.0),
  )


# What a LlamaGen over 4 × 4 codes becomes.
CHANGES = {
  'token': _token,
  'diagonal': _diagonal,
  'scale': _scale,
  'masked': _masked,
}
SIZES = tuple(CHANGES)


def get_sweep():
  """Every variant over the same tokenizer, for `arvision sweep`."""
  needs = {'frozen.tokenizer': 'llamagen/digits_tokenizer'}
  return [{'variant': size, 'needs': needs} for size in SIZES]
