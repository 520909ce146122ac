"""VAR on ImageNet 512 × 512, as published: d36, with one adaLN for all blocks.

    arvision train --config=configs/var/imagenet512.py \\
      --workdir=runs/var-d36

Class labels, 10 scales, 2,240 tokens; the tokenizer is `vae_ch160v4096z32` with
the grids of `tokenizer.py:512`.

Cost, as published: 4 days on 256 A100.

Published figure (not obtained here): FID 2.63.

Deviations: bfloat16 where the published run used float16 with a loss scale.

Source: arXiv 2404.02905; FoundationVision/VAR.
"""

from arvision.configs import common
from arvision.configs.var import imagenet256, tokenizer

SIZES = {
  'd36': dict(
    depth=36,
    batch=768,
    epochs=350,
    rate=8e-5,
    final=0.01,
    gate=5e-6,
    decay_end=0.08,
    shared_adaln=True,
  )
}


def get_config(arg: str = 'd36'):
  return imagenet256.recipe(
    tokenizer.get_config('512'),
    'runs/var-tokenizer-512',
    **common.size(arg or 'd36', SIZES),
  )
