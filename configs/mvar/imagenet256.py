"""M-VAR on ImageNet 256 × 256, as published: d12, d16, d20, d24, d32.

    arvision train --config=configs/mvar/imagenet256.py:d16 \\
      --workdir=runs/mvar-d16

VAR with its attention inside a scale alone; a Mamba-2 layer in every block carries
a state from scale to scale. The tokenizer is VAR's (`var/tokenizer.py`), and so is
the recipe, that of d30 for d32. d16 and d20 have no L2 norm of queries and keys.

Published figures (not obtained here): FID 4.19 / 3.07 / 2.41 / 1.93 / 1.78 with
cfg 1.5, top-k 900 and top-p 0.96.

Deviations: bfloat16 where the published runs used float16 with a loss scale; a
state is carried in sampling where the published code runs Mamba over all past
scales again.

Source: arXiv 2411.10433; OliverRensu/MVAR.
"""

from arvision.configs import common
from arvision.configs.mvar import parts
from arvision.configs.var import imagenet256, tokenizer

_VAR = imagenet256.SIZES
SIZES = {
  'd12': {**_VAR['d16'], 'depth': 12},
  'd16': {**_VAR['d16'], 'l2_norm': False},
  'd20': {**_VAR['d20'], 'l2_norm': False},
  'd24': _VAR['d24'],
  'd32': {**_VAR['d30'], 'depth': 32},
}


def get_config(arg: str = 'd16'):
  size = common.size(arg or 'd16', SIZES)
  return imagenet256.recipe(
    tokenizer.get_config(), 'runs/var-tokenizer', fill=parts.mvar, **size
  )
