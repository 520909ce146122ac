"""512 clusters of the codes of LlamaGen's VQ-16, and CTF's fine stage of 343 M.

    arvision train --config=configs/llamagen/tokenizer.py \\
      --workdir=runs/llamagen-tokenizer
    arvision train --config=configs/ctf/tokenizer.py \\
      --workdir=runs/ctf-tokenizer --config.data.source.data_dir=DIR

Weights that LlamaGen released serve as the first run (`arvision import`). One
fine stage serves the generators of all sizes (`ctf/imagenet256`).

Source: arXiv 2503.16194; there is no official code. Layers and parameters of the fine
stage are those of LlamaGen-L. Deviations: 512 clusters are inferred from the published
parameters of the first stages, 87, 310 and 734 M, which no other power of two gives;
learning rate, batch and duration of the fine stage are those of LlamaGen, and it is
not guided; it is told the class; codes of other clusters are excluded.
"""

from arvision.configs import common
from arvision.configs.ctf import parts
from arvision.configs.llamagen import imagenet256, tokenizer


def get_config(arg: str = ''):
  del arg
  config = tokenizer.get_config().unlock()
  large = dict(imagenet256.SIZES['L'], guidance=1.0)
  parts.fine(
    config,
    teacher='runs/llamagen-tokenizer',
    clusters=512,
    classes=1000,
    **large,
  )
  config.tokenizer.backbone.update(dtype='bfloat16', remat='dots')
  imagenet256.recipe(config)
  config.optim.trained.only = parts.FINE
  return common.locked(config)
