"""FlowAR on ImageNet 256 × 256, as published: S, L, H.

    arvision train --config=configs/mar/tokenizer.py --workdir=runs/kl16
    arvision train --config=configs/flowar/imagenet256.py:S \\
      --workdir=runs/flowar-s --config.data.source.data_dir=DIR

Class labels; the latent of MAR's KL-16 at sides 1, 2, 4, 8, 16, each averaged
from the whole and drawn by a flow of its own, 341 tokens. S has a flow head of
self-attention, L and H one that also attends to z. Every visit of an image is
another crop and another draw of its latent, so images are encoded in the step.

`:S_disa`, `:L_disa` and `:H_disa` draw with fewer solver steps the larger the
scale (DiSA, arXiv 2505.20297), 25 to 15 (H: 50 to 15) instead of 25 (50).
Their weights are those of the others; give the config with --config to
`arvision sample`.

Published figures (not obtained here): FID 1.90 (L) and 1.65 (H) with cfg 2.4;
S was not published, a re-run with cfg 4.3 gave 3.70.

Source: arXiv 2412.15205; OliverRensu/FlowAR, of which L and H are what its code
calls large and huge. Its table has batch 1024 and rate 2e-4, its code 2048 and
4e-4, as here.
"""

from arvision.configs import common
from arvision.configs.flowar import parts
from arvision.configs.mar import tokenizer

# `depth` is that of a half, `below` the noise level below which cfg holds, `steps`
# the solver's at the first scale.
_S = dict(width=768, depth=6, heads=12, head=parts.SELF, below=0.9, steps=25)
_L = dict(width=1024, depth=8, heads=16, head=parts.CROSS, below=0.9, steps=25)
_H = dict(width=1536, depth=15, heads=16, head=parts.CROSS, below=0.7, steps=50)
SIZES = {
  'S': dict(head_width=1024, head_depth=2, guidance=4.3, **_S),
  'L': dict(head_width=1024, head_depth=12, guidance=2.4, **_L),
  'H': dict(head_width=1536, head_depth=12, guidance=2.4, **_H),
}
SIZES |= {
  'S_disa': {**SIZES['S'], 'guidance': 4.2},
  'L_disa': SIZES['L'],
  'H_disa': SIZES['H'],
}
# Of DiSA's solver, at the last scale.
LAST_STEPS = 15


def get_config(arg: str = 'S'):
  size = common.size(arg or 'S', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/kl16')
  scales = (1, 2, 4, 8, 16)
  parts.pyramid(config.tokenizer, scales)
  config.data = common.imagenet(size=256, resize=288, batch_size=2048)
  config.data.update(filter='bilinear', flip=True)
  parts.flowar(
    config,
    scales=scales,
    channels=config.tokenizer.quantizer.channels,
    classes=1000,
    second_depth=size['depth'],
    **size,
  )
  if arg.endswith('_disa'):
    parts.falling(config, size['steps'], LAST_STEPS)
  # float32: the published runs met NaNs in half precision.
  config.backbone.remat = config.head.remat = (
    'none' if size['head'] == parts.SELF else 'full'
  )
  config.train = common.block(duration=common.block(epochs=400))
  config.optim = common.adamw(
    4e-4, common.cosine(0.025, epochs=100), weight_decay=0.02, clip=3.0
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
