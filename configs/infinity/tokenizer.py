"""Infinity's multi-scale tokenizers of bits: d16, d24, d32, d64, and d56.

    arvision train --config=configs/infinity/tokenizer.py:d32 \\
      --workdir=runs/infinity-tokenizer \\
      --config.task.distances.lpips.path=FILE

dN has N bits per token on a grid of 16 px. d56 is that of the 8B model: a grid of
8 px with 14 bits, of which 2 × 2 places are a token. The architecture is that of
the released `infinity_vae_d32.pth` and its like.

Published figures (not obtained here): rFID at 256 px and PSNR 1.22 / 20.9 (d16),
0.75 / 22.0 (d24), 0.61 / 22.7 (d32), 0.33 / 24.9 (d64).

Deviations: the recipe is that of var/tokenizer.py, with the published weights of the
quantiser's losses, since the released repository has no training code; ImageNet at
256 px. The tokenizer serves other sizes with other lists of scales.

Source: arXiv 2412.04431; FoundationVision/Infinity.
"""

from arvision.configs import common
from arvision.configs.infinity import parts
from arvision.configs.var import tokenizer

_F16 = {'ch_mult': (1, 2, 4, 4, 4)}
SIZES = {
  'd16': dict(bits=16, **_F16),
  'd24': dict(bits=24, **_F16),
  'd32': dict(bits=32, **_F16),
  'd64': dict(bits=64, **_F16),
  'd56': dict(bits=14, patch=2, ch_mult=(1, 2, 4, 4)),
}


def get_config(arg: str = 'd32'):
  config = tokenizer.get_config('256').unlock()
  config.release = common.block(type='importers.infinity.Tokenizer')
  config.tokenizer = parts.multi_scale_bsq(
    scales=parts.SCALES[256],
    ch=128,
    res_blocks=2,
    **common.size(arg or 'd32', SIZES),
  )
  config.task.restart_after = 0
  return common.locked(config)
