"""BAR's tokenizer on scikit-learn's digits: eight bits for 2 × 2 px.

    arvision train --config=bar/digits_tokenizer \\
      --workdir=runs/bar/digits_tokenizer

Source: arXiv 2602.09024, at a size for 8 × 8 px. Deviations: as in
var/digits_tokenizer.py; no alignment, whose encoder is not for such images; the
encoder starts at the boundary between the two values of its bits.
"""

from arvision.configs import common
from arvision.configs.bar import parts
from arvision.configs.var import digits_tokenizer as var

SIZE = dict(width=64, depth=2, heads=4)


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.bar.Tokenizer')
  config.tokenizer = parts.tokenizer(
    bits=8,
    grid=(4, 4),
    patch=2,
    encoder=SIZE,
    decoder=SIZE,
    positions=(4, 4),
    image_channels=1,
  )
  for half in (config.tokenizer.encoder, config.tokenizer.decoder):
    half.unroll = SIZE['depth']  # all layers, see layers.stack.Stack
    half.std = half.width**-0.5
    for part in (half.block.attention, half.block.mlp):
      part.std = part.out_std = half.std
  config.tokenizer.encoder.out_bias = -3.8
  var.recipe(config, l2=1.0)
  config.task.restart_after = 0
  config.optim.learning_rate = 2e-3
  return common.locked(config)
