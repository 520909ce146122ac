"""BAR on ImageNet 256 × 256, as published: B, L, and B with patches.

    arvision encode --config=bar/tokenizer --workdir=runs/bar-tokenizer \\
      --views=flip --output=DIR
    arvision train --config=bar/imagenet256:B --workdir=runs/bar-b

Class labels, 16 × 16 tokens of 16 bits, which a head unmasks in four steps. In
`B_2` and `B_4` a token is a square of 2 × 2 or 4 × 4 patches, of 64 or 256 bits.
Orders of prediction are random for the first half of the run, then more and more
often raster, which they all are from three quarters on.

Published figures (not obtained here): FID 1.13 (B), 0.99 (L), 1.35 (B_2), 2.34
(B_4) with the guidance, temperature and allocation of the table below.

Source: arXiv 2602.09024; amazon-far/BAR.
"""

from arvision.configs import common
from arvision.configs.bar import parts, tokenizer

_B = dict(depth=24, width=768, heads=12)
SIZES = {
  'B': dict(**_B, patch=1, dropout=0.0),
  'L': dict(depth=32, width=1280, heads=16, patch=1, dropout=0.2),
  'B_2': dict(**_B, patch=2, dropout=0.0),
  'B_4': dict(**_B, patch=4, dropout=0.0),
}
SAMPLING = {
  'B': dict(guidance=5.0, temperature=2.5, allocation=(2, 2, 5, 7)),
  'L': dict(guidance=5.3, temperature=3.0, allocation=(2, 2, 5, 7)),
  'B_2': dict(guidance=5.5, temperature=2.0, allocation=(16,) * 4),
  'B_4': dict(guidance=9.6, temperature=1.4, allocation=(64,) * 4),
}


def get_config(arg: str = 'B'):
  arg = arg or 'B'
  size = common.size(arg, SIZES)
  return parts.published(
    tokenizer.get_config('256'),
    'runs/bar-tokenizer',
    steps=250_000,
    **size,
    **SAMPLING[arg],
  )
