"""The KL-8 autoencoder of Stable Diffusion, for ACDiT.

    arvision train --config=configs/acdit/tokenizer.py \\
      --workdir=runs/kl8 \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.lpips.path=FILE

or, with released weights in the keys of latent diffusion,

    arvision import --config=configs/acdit/tokenizer.py --workdir=runs/kl8 \\
      --source=vae-ft-ema-560000-ema-pruned.ckpt

An image of 256 px becomes 32 × 32 latents of 4 channels. The recipe is that of
mar/tokenizer.py.

Deviations: ImageNet instead of OpenImages; files of diffusers, which have other
keys, are not read.

Source: arXiv 2112.10752 (kl-f8); thunlp/ACDiT takes the one of DiT
(arXiv 2212.09748).
"""

from arvision.configs import common
from arvision.configs.mar import tokenizer


def get_config(arg: str = ''):
  config = tokenizer.get_config(arg).unlock()
  config.tokenizer = tokenizer.kl16(
    grid=(32, 32),
    channels=4,
    ch_mult=(1, 2, 4, 4),
    encoder_levels=(),
    scale=0.18215,
  )
  return common.locked(config)
