"""BAR-L on ImageNet 512 × 512, as published.

    arvision encode --config=bar/tokenizer:512 \\
      --workdir=runs/bar-tokenizer-512 --views=flip --output=DIR
    arvision train --config=bar/imagenet512 --workdir=runs/bar-l-512

32 × 32 tokens of 10 bits; else as bar/imagenet256.py:L.

Published figures (not obtained here): FID 1.09.

Source: arXiv 2602.09024; amazon-far/BAR. Deviations: the published global batch
is not stated; 2048 is that of 256 px.
"""

from arvision.configs.bar import imagenet256, parts, tokenizer


def get_config(arg: str = ''):
  del arg
  return parts.published(
    tokenizer.get_config('512'),
    'runs/bar-tokenizer-512',
    steps=125_000,
    guidance=4.2,
    temperature=2.8,
    allocation=(2, 2, 2, 4),
    **imagenet256.SIZES['L'],
  )
