"""A continuous tokenizer of Fashion-MNIST at 32 px, for MAR.

    arvision train --config=configs/mar/fashion_mnist_tokenizer.py \\
      --workdir=runs/mar/fashion_mnist_tokenizer

32 × 32 px become 8 × 8 latents of 8 channels. `arvision latents` measures what
`quantizer.scale` has to be.

Source: arXiv 2112.10752 (kl-f16), as MAR uses it. Deviations: as in
var/fashion_mnist_tokenizer.py, and the weight of the KL divergence of
mar/digits_tokenizer.py.
"""

from arvision.configs import common
from arvision.configs.var import fashion_mnist_tokenizer as var

CHANNELS = 8


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.kl.Tokenizer')
  parts = var.autoencoder()
  parts['encoder'].z_channels = 2 * CHANNELS
  config.tokenizer = common.block(
    type='tokenizers.autoencoder.Autoencoder',
    grid=(8, 8),
    quantizer=common.block(
      type='quantizers.kl.KL', channels=CHANNELS, kl=1e-5, scale=1.0
    ),
    **parts,
  )
  var.recipe(config)
  config.task.restart_after = 0  # there is no table of codes
  return common.locked(config)
