"""Infinity, a generator from captions at 256, 512 and 1024 px, as published.

    arvision train --config=configs/infinity/t2i.py:2b_256 \\
      --workdir=runs/infinity-2b \\
      --config.data.source.path=IMAGES --config.data.text.path=FEATURES

The conditions are features of flan-t5-xl, computed beforehand, of at most 512
tokens for each caption; FEATURES/<SHA-256 of the caption>.npy holds (tokens, 2048),
see `data.text.file_name`. `2b_512` and `2b_1024` go on from the weights of the
smaller size (`--init_from`). `2b_1024@0.750` is of images with three quarters of
their width in height, 864 × 1152 px; there are 1.000, 1.250, 1.333, 1.500, 1.750,
2.000, 2.500, 3.000, and their inverses 0.800, 0.750, 0.666, 0.571, 0.500, 0.400 and
0.333. No parameter depends on the ratio: `arvision import` and `--init_from` take the
same weights for all.

Published figures (not obtained here): 2B at 1024 px GenEval 0.69 without and 0.73
with a rewriter, DPG 83.5; 8B 0.79 with a rewriter, DPG 86.6.

As published: AdamW with betas (0.9, 0.97), weight decay 0.005, a constant learning
rate, clipping at 5. The rate and the batch size are those that the authors named for
pre-training, 6e-5 and 4096.

Deviations: a run has images of one ratio, where the published ones mix all 15;
bfloat16 activations of whole blocks; captions are
not exchanged for short ones at random; the share of flipped bits is sampled for every
image.

Source: arXiv 2412.04431; FoundationVision/Infinity, train.py and
https://github.com/FoundationVision/Infinity/issues/43.
"""

from arvision.configs import common
from arvision.configs.infinity import parts, tokenizer

_SMALL = {'chunks': 4, 'tokenizer': 'd16'}
MODELS = {
  'layer12': dict(depth=12, width=768, heads=8, **_SMALL),
  'layer16': dict(depth=16, width=1152, heads=12, **_SMALL),
  'layer24': dict(depth=24, width=1536, heads=16, **_SMALL),
  'layer32': dict(depth=32, width=2080, heads=20, **_SMALL),
  'layer40': dict(depth=40, width=2688, heads=24, **_SMALL),
  'layer48': dict(depth=48, width=3360, heads=28, **_SMALL),
  '2b': dict(depth=32, width=2048, heads=16, chunks=8, tokenizer='d32'),
  '8b': dict(depth=40, width=3584, heads=28, chunks=8, tokenizer='d56'),
}
SIDES = {'2b': (256, 512, 1024), '8b': (512, 1024)}
SIZES = {
  f'{name}_{side}': dict(side=side, **model)
  for name, model in MODELS.items()
  for side in SIDES.get(name, (256,))
}


def get_config(arg: str = '2b_1024'):
  name, _, ratio = (arg or '2b_1024').partition('@')
  size = dict(common.size(name, SIZES))
  side, kind = size.pop('side'), size.pop('tokenizer')
  config = common.generator(
    tokenizer.get_config(kind), f'runs/infinity-tokenizer-{kind}'
  )
  config.tokenizer.scales, units = parts.SCALES[side], (64, 64)
  config.data = common.imagenet(size=side, resize=None, batch_size=4096)
  if ratio:
    config.tokenizer.scales = grids = parts.rectangles(side, ratio)
    config.data.size = tuple(16 * n for n in grids[-1])
    units = parts.rectangles(1024, ratio)[-1]
  config.data.crop = 'center'
  config.data.source = common.block(type='data.folder.Folder', path='')
  config.data.text = common.block(
    type='data.text.Stored', path='', length=512, channels=2048
  )
  parts.infinity(
    config,
    length=512,
    channels=2048,
    units=units,
    temperature=1.0 if arg.startswith('8b') else 0.5,
    **size,
  )
  config.backbone.update(dtype='bfloat16', remat='full')
  config.train = common.block(duration=common.block(epochs=1))
  config.optim = common.adamw(
    6e-5,
    common.block(type='training.schedule.Constant'),
    weight_decay=0.005,
    b2=0.97,
    clip=5.0,
    exempt=parts.NO_DECAY,
  )
  config.ema = ()
  return common.locked(config)
