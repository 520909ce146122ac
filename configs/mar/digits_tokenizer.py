"""A continuous tokenizer of scikit-learn's digits, for MAR, xAR and FlowAR.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer

8 × 8 px become 4 × 4 latents of 4 channels.

Cost: 0.6 minutes on two cores of an AMD EPYC.

Source: arXiv 2112.10752 (kl-f16), as MAR uses it. Deviations: as in
var/digits_tokenizer.py, and a weight of the KL divergence at which
every channel carries something: at 1e-4 two of the four are noise.
"""

from arvision.configs import common
from arvision.configs.var import digits_tokenizer as var


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.kl.Tokenizer')
  parts = var.autoencoder()
  parts['encoder'].z_channels = 8
  config.tokenizer = common.block(
    type='tokenizers.autoencoder.Autoencoder',
    grid=(4, 4),
    quantizer=common.block(
      type='quantizers.kl.KL',
      channels=4,
      kl=1e-5,
      scale=1.03,  # 1 / the standard deviation of sampled latents, 0.972
    ),
    **parts,
  )
  var.recipe(config, l2=1.0)
  config.task.restart_after = 0
  return common.locked(config)
