"""CTF on ImageNet 256 × 256: LlamaGen-B, L or XL over 512 clusters of codes.

    arvision encode --config=configs/ctf/tokenizer.py \\
      --workdir=runs/ctf-tokenizer --views=ten_crop --output=DIR
    arvision train --config=configs/ctf/imagenet256.py:B --workdir=runs/ctf-b
    arvision sample --workdir=runs/ctf-b

The last command samples 256 clusters one by one, and then all codes in one pass
of the fine stage, which is part of the tokenizer.

Published figures (not obtained here): FID 4.15 (B), 2.97 (L) and 2.76 (XL), with
inception scores of 255.0, 291.5 and 299.7.

Source: arXiv 2503.16194; there is no official code. Deviations: as in
ctf/tokenizer.py; recipe and guidance of the first stage are LlamaGen's.
"""

from arvision.configs import common
from arvision.configs.ctf import parts, tokenizer
from arvision.configs.llamagen import imagenet256

SIZES = {name: imagenet256.SIZES[name] for name in ('B', 'L', 'XL')}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/ctf-tokenizer')
  parts.ctf(config, classes=1000, **size)
  config.backbone.update(dtype='bfloat16', remat='dots')
  imagenet256.recipe(config)
  return common.locked(config)
