"""The tokenizer of NFIG on ImageNet 256 × 256: bands of frequencies (FR-VAE).

    arvision train --config=configs/nfig/tokenizer.py \\
      --workdir=runs/nfig-tokenizer \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.lpips.path=FILE

680 codes of 4,096 on the ten grids of VAR, whose encoder, decoder and codebook it
has. As published: squared differences of the images and of the latents, LPIPS 1,
discriminator 0.5.

Deviations: the published cut-offs, learning rate and length are not known here; a
cut-off is the Nyquist frequency of its scale, the recipe is that of
var/tokenizer.py. The squared difference of latents is the mean over all scales,
each to the latent below its cut-off. A convolutional patch discriminator with an
adaptive weight where the published one is on DINO features; dead codes are
restarted.

Source: arXiv 2503.07076; there is no official code.
"""

from arvision.configs import common
from arvision.configs.nfig import parts
from arvision.configs.var import tokenizer


def get_config(arg: str = ''):
  del arg
  config = parts.banded(tokenizer.get_config())
  config.task.l1 = 0.0
  config.task.adversary.weight = 0.5
  return common.locked(config)
