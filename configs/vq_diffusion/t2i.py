"""VQ-Diffusion that reads captions, at 256 px, as published.

    arvision train --config=configs/vq_diffusion/t2i.py:coco \\
      --workdir=runs/vq_diffusion-t2i \\
      --config.data.source.path=IMAGES --config.data.text.path=FEATURES

The conditions are features of CLIP ViT-B/32, computed beforehand, of all 77 tokens of
a caption, each of length 1; FEATURES/<SHA-256 of the caption>.npy holds (77, 512), see
`data.text.file_name`. Weights without a learned null caption (`coco_pretrained.pth`,
`cub_pretrained.pth`) take
`--config.condition.type=layers.level_condition.LevelAndPlainCaption`.

As published: 19 layers of width 1,024 (`coco`, also for CUB-200 and Conceptual
Captions) or 36 of width 1,408 (`ithq`), 32 × 32 codes, 100 times, AdamW with betas 0.9
and 0.96, weight decay 0.045, gradients clipped to 0.5, cross entropy 0.0005, a null
caption that is learned with a tenth of the captions dropped. The sampler is the
high-quality one with the purity prior. Published figures (not obtained here): FID
13.86 on MSCOCO, and 8.44 improved.

Source: arXiv 2111.14822, 2205.16007; microsoft/VQ-Diffusion. Deviations: the number
of GPUs is not published; 8 of 4 images each are supposed. The published average
moves every 25 steps with 0.99; here every step with as much in all. `ithq` has a
tokenizer of its own there; here it is that of `coco` with 4,096 codes. The times of
all devices have one average of losses.
"""

from arvision.configs import common
from arvision.configs.vq_diffusion import parts, tokenizer

SIZES = {
  'coco': dict(vocab_size=2887, depth=19, width=1024, rate=2e-4, warmup=1_000),
  'ithq': dict(vocab_size=4096, depth=36, width=1408, rate=1e-4, warmup=7_000),
}
CAPTION = {'length': 77, 'channels': 512}


def get_config(arg: str = 'coco'):
  size = dict(common.size(arg or 'coco', SIZES))
  rate, warmup = size.pop('rate'), size.pop('warmup')
  config = common.generator(
    tokenizer.get_config('f8'), 'runs/vq_diffusion-tokenizer-f8'
  )
  config.tokenizer.quantizer.vocab_size = size['vocab_size']
  config.data.update(crop='center', flip=False, batch_size=32)
  config.data.source = common.block(type='data.folder.Folder', path='')
  config.data.text = common.block(type='data.text.Stored', path='', **CAPTION)
  parts.vq_diffusion(
    config,
    grid=config.tokenizer.grid,
    caption=CAPTION,
    heads=16,
    convolutions=False,
    auxiliary=5e-4,
    drop=0.1,
    **size,
  )
  parts.high_quality(config, counts=parts.PUBLISHED_COUNTS)
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'full' if arg == 'ithq' else 'dots'
  config.train = common.block(duration=common.block(epochs=100))
  config.optim = parts.plateau(rate, warmup)
  config.ema = (0.9996,)
  return common.locked(config)
