"""SMDM's transformers on ImageNet 256 × 256.

    arvision train --config=configs/smdm/imagenet256.py:113M --workdir=runs/smdm

Absorbing diffusion over the 16 × 16 codes of maskgit/tokenizer, with the transformers
of the paper, which are named by their parameters without embeddings. As published:
linear masking of at least 0.1 %, weights of the ELBO, AdamW with betas 0.9 and 0.95,
weight decay 0.1, gradients clipped at 1, learning rate 2e-4 to 2e-5 after a warm-up of
1 % of the steps, batch 256, draws in 64 bits. Sampled by the first-hitting sampler
(arXiv 2409.02908) in 256 calls, one per code.

The paper is about text; there is no published figure of images.

Deviations: codes of images instead of text, with a label that is masked like a
code; 2D rotations and the initialisation of LlamaGen; epochs are those of
LlamaGen.

Source: arXiv 2410.18514; ML-GSAI/SMDM.
"""

from arvision.configs import common
from arvision.configs.maskgit import tokenizer
from arvision.configs.smdm import parts

SIZES = {
  '34M': dict(depth=8, width=512, heads=8),
  '113M': dict(depth=12, width=768, heads=12),
  '336M': dict(depth=20, width=1024, heads=16),
  '1028M': dict(depth=20, width=1792, heads=14),
}


def get_config(arg: str = '113M'):
  size = common.size(arg or '113M', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/maskgit-tokenizer')
  parts.smdm(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    hidden=4 * size['width'],
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 256
  config.train = common.block(duration=common.block(epochs=300.0))
  schedule = common.cosine(0.1, fraction=0.01)
  config.optim = common.adamw(2e-4, schedule, weight_decay=0.1, clip=1.0)
  config.ema = (0.9999,)
  return common.locked(config)
