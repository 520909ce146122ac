"""The VQGAN tokenizers of VQ-Diffusion, at 16 and 8 px to a token.

    arvision train --config=configs/vq_diffusion/tokenizer.py:f16 \\
      --workdir=runs/vq_diffusion-tokenizer-f16 \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.lpips.path=FILE

`f16` has 974 codes for ImageNet, `f8` 2,887 for pictures with captions.

Deviations: the published codebooks have 16,384 and 8,192 codes, of which these
many are used, and the others are left out afterwards; here there are no others.
`f8` is a VQGAN of Gumbel samples there. The recipe is that of
llamagen/tokenizer.py.

Source: arXiv 2012.09841 (VQGAN); microsoft/VQ-Diffusion.
"""

from arvision.configs import common
from arvision.configs.llamagen import tokenizer as llamagen
from arvision.configs.vq_diffusion import parts

SIZES = {
  'f16': dict(grid=(16, 16), vocab_size=974, ch_mult=(1, 1, 2, 2, 4)),
  'f8': dict(grid=(32, 32), vocab_size=2887, ch_mult=(1, 1, 2, 4)),
}


def get_config(arg: str = 'f16'):
  size = common.size(arg or 'f16', SIZES)
  config = llamagen.get_config().copy_and_resolve_references().unlock()
  del config.release
  config.tokenizer = parts.vqgan(channels=256, **size)
  return common.locked(config)
