"""ReCAP on ImageNet 256 × 256: MaskGIT-r, and MAR L and H.

    arvision import --config=configs/recap/imagenet256.py:maskgit \\
      --workdir=runs/recap-maskgit --source=nnet_ema.pth \\
      --config.frozen.tokenizer=runs/maskgit-tokenizer

or, to train it,

    arvision train --config=configs/recap/imagenet256.py:maskgit \\
      --workdir=runs/recap-maskgit

`maskgit` is the U-ViT of AutoNAT over 16 × 16 codes of maskgit/tokenizer, sampled in
16 steps, of which the first 8 and then every second one are full passes. Other
published settings, as `sampler.steps` / `full_steps` / `policy.last`: 32 / 12 / 0.75,
24 / 10 / 0.72, 20 / 10 / 0.68, 16 / 0 / 0.65.

`mar_L` and `mar_H` are mar/imagenet256 L and H, sampled in 96 and 128 steps; the
first half, and then every second one, are full passes. The others take 40 of 100
diffusion steps. Other published steps: 84, 56, 36 (L); 96, 48 (H).

Published figure (not obtained here): up to 2.4 times as fast as the sampler without
reuse.

Deviations: the recipe that MaskGIT-r was trained by is not part of the release;
rate, decay and duration are those of maskgit/imagenet256, with labels dropped. Dropout
of embeddings is off.

Source: arXiv 2505.19089; liebenxj/ReCAP.
"""

from arvision.configs import common
from arvision.configs.mar import imagenet256 as mar
from arvision.configs.maskgit import imagenet256 as maskgit
from arvision.configs.maskgit import tokenizer
from arvision.configs.recap import parts

SIZES = {
  'maskgit': dict(steps=16, full_steps=8),
  'mar_L': dict(size='L', steps=96, full_steps=48),
  'mar_H': dict(size='H', steps=128, full_steps=64),
}


def get_config(arg: str = 'maskgit'):
  size = dict(common.size(arg or 'maskgit', SIZES))
  if 'size' in size:
    config = mar.get_config(size.pop('size')).unlock()
    config.sampler.steps = size.pop('steps')
    parts.reuse_in_mar(config, **size)
    return common.locked(config)
  config = common.generator(tokenizer.get_config(), 'runs/maskgit-tokenizer')
  parts.maskgit(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    depth=24,
    width=768,
    heads=8,
    hidden=3072,
    last=0.65,
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  recipe = maskgit.get_config()
  for name in ('train', 'optim', 'ema'):
    config[name] = recipe[name]
  config.data.batch_size = recipe.data.batch_size
  return common.locked(config)
