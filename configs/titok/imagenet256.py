"""TiTok's generators on ImageNet 256 × 256, as published: L-32, B-64, S-128.

    arvision train --config=configs/titok/imagenet256.py:L-32 \\
      --workdir=runs/titok-l32-maskgit

All codes of an image at once, some of them hidden; the surest are kept at every
step. A BERT over 32 or 64 codes, a U-ViT over 128.

As published: batch 2048, 500k steps, AdamW, learning rate 2e-4, cosine to 1e-5.
Published figures (not obtained here): FID 2.77 (L-32, 8 steps), 2.48 (B-64, 8
steps), 1.97 (S-128, 64 steps). Their guidance is written c + s (c - u) with s
from 0 to 4.5 and 3.0 for the first two, which is a scale from 1 to 5.5 and 4.0.

Source: arXiv 2406.07550; bytedance/1d-tokenizer.
"""

from arvision.configs import common
from arvision.configs.titok import parts, tokenizer

_BERT = dict(depth=24, width=768, heads=16, hidden=3072, steps=8)
_UVIT = dict(depth=20, width=1024, heads=16, hidden=4096, steps=64)
SIZES = {
  'L-32': dict(make=parts.bert, temperature=9.5, **_BERT),
  'B-64': dict(make=parts.bert, temperature=11.0, **_BERT),
  'S-128': dict(make=parts.uvit, temperature=2.8, **_UVIT),
}
_LINEAR = 'process.guidance.Linear'
_COSINE = 'process.guidance.PowerCosine'
GUIDANCE = {
  'L-32': common.block(type=_LINEAR, end=5.5, over=8),
  'B-64': common.block(type=_LINEAR, end=4.0, over=8),
  'S-128': common.block(type=_COSINE, scale=6.9, power=3.0),
}


def get_config(arg: str = 'L-32'):
  arg = arg or 'L-32'
  size = dict(common.size(arg, SIZES))
  config = common.generator(tokenizer.get_config(arg), f'runs/titok-{arg}')
  size.pop('make')(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    guidance=GUIDANCE[arg],
    **size,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 2048
  config.train = common.block(duration=common.block(steps=500_000))
  config.optim = common.adamw(
    2e-4,
    common.cosine(0.05, steps=10_000),
    weight_decay=0.03,
    b2=0.96,
    clip=1.0,
  )
  config.ema = (0.999,)
  return common.locked(config)
