"""NFIG on ImageNet 256 × 256: next-frequency prediction in 10 steps.

    arvision train --config=configs/nfig/imagenet256.py --workdir=runs/nfig

Class labels, 10 bands, 680 tokens; the tokenizer is that of `tokenizer.py`.

Published figures (not obtained here): FID 2.81, IS 332.4 with cfg 4.5 and top-k 990,
1.25 times as fast as VAR-d20.

Deviations: the published size, batch, learning rate and length are not known here;
they are those of VAR-d16, which VAR's own table has 1.25 times as fast as VAR-d20.
cfg is taken for VAR's, a scale that grows from 1 to 5.5. bfloat16.

Source: arXiv 2503.07076; there is no official code.
"""

from arvision.configs import common
from arvision.configs.nfig import tokenizer
from arvision.configs.var import imagenet256


def get_config(arg: str = ''):
  del arg
  config = imagenet256.recipe(
    tokenizer.get_config(), 'runs/nfig-tokenizer', **imagenet256.SIZES['d16']
  ).unlock()
  del config.release
  config.sampler.guidance.end = 1 + 4.5
  config.sampler.logits_filter.update(top_k=990, top_p=1.0)
  return common.locked(config)
