"""A VAR of 10.8 B parameters on ImageNet 1024 × 1024: d60.

    arvision train --config=configs/var/imagenet1024.py \\
      --workdir=runs/var-d60 --config.mesh.fsdp=8

Class labels, 13 scales, 10,521 tokens; the tokenizer is `vae_ch160v4096z32` with
the grids of `tokenizer.py:1024`. Nobody published this model, nor was it trained
here: it is VAR's law of growth (width 64 × depth, a head for every layer) carried
on from d36, to rehearse runs of thousands of chips (docs/parallelism.md).

Deviations: activations of a block are computed again in the backward pass.

Source: arXiv 2404.02905; FoundationVision/VAR; the grids are those of Infinity at
1024 px (arXiv 2412.04431).
"""

from arvision.configs import common
from arvision.configs.var import imagenet256, tokenizer

SIZES = {
  'd60': dict(
    depth=60,
    batch=512,
    epochs=350,
    rate=8e-5,
    final=0.01,
    gate=5e-6,
    decay_end=0.08,
    shared_adaln=True,
  )
}


def get_config(arg: str = 'd60'):
  config = imagenet256.recipe(
    tokenizer.get_config('1024'),
    'runs/var-tokenizer-1024',
    **common.size(arg or 'd60', SIZES),
  )
  config.backbone.remat = 'full'
  return config
