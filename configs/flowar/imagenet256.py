"""FlowAR on ImageNet 256 × 256, as published: S, L, H.

    arvision train --config=configs/mar/tokenizer.py --workdir=runs/kl16
    arvision train --config=configs/flowar/imagenet256.py:S \\
      --workdir=runs/flowar-s --config.data.source.data_dir=DIR

Class labels; the latent of MAR's KL-16 at sides 1, 2, 4, 8, 16, each averaged
from the whole and drawn by a flow of its own, 341 tokens. S has a flow head of
self-attention, L and H one that also attends to z. Every visit of an image is
another crop and another draw of its latent, so images are encoded in the step.

`:S_disa`, `:L_disa` and `:H_disa` draw with fewer solver steps the larger the
scale (DiSA, arXiv 2505.20297), 25 to 15 (H: 50 to 15) in place of 25 (50).
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

# width, layers of either half, heads, kind, width and layers of the flow head,
# cfg, noise level that it holds below, first and last number of solver steps.
SIZES = {
  'S': (768, 6, 12, parts.SELF, 1024, 2, 4.3, 0.9, 25, 25),
  'L': (1024, 8, 16, parts.CROSS, 1024, 12, 2.4, 0.9, 25, 25),
  'H': (1536, 15, 16, parts.CROSS, 1536, 12, 2.4, 0.7, 50, 50),
  'S_disa': (768, 6, 12, parts.SELF, 1024, 2, 4.2, 0.9, 25, 15),
  'L_disa': (1024, 8, 16, parts.CROSS, 1024, 12, 2.4, 0.9, 25, 15),
  'H_disa': (1536, 15, 16, parts.CROSS, 1536, 12, 2.4, 0.7, 50, 15),
}


def get_config(arg: str = 'S'):
  size = common.size(arg or 'S', SIZES)
  width, depth, heads, head, head_width, head_depth, *drawing = size
  guidance, below, first, last = drawing
  config = common.generator(tokenizer.get_config(), 'runs/kl16')
  scales = (1, 2, 4, 8, 16)
  parts.pyramid(config.tokenizer, scales)
  config.data = common.imagenet(size=256, resize=288, batch_size=2048)
  config.data.update(filter='bilinear', flip=True)
  parts.flowar(
    config,
    scales=scales,
    channels=config.tokenizer.channels,
    classes=1000,
    width=width,
    heads=heads,
    depth=depth,
    second_depth=depth,
    head=head,
    head_width=head_width,
    head_depth=head_depth,
    guidance=guidance,
    below=below,
    steps=first,
  )
  if last < first:
    parts.falling(config, first, last)
  # float32: the published runs met NaNs in half precision.
  config.backbone.remat = config.head.remat = (
    'none' if head == parts.SELF else 'full'
  )
  config.train = common.block(duration=common.block(epochs=400))
  config.optim = common.adamw(
    4e-4, common.cosine(0.025, epochs=100), weight_decay=0.02, clip=3.0
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
