"""A single-scale tokenizer of scikit-learn's digits, for LlamaGen and NAR.

    arvision train --config=configs/digits/vq.py --workdir=runs/digits/vq

8 × 8 px become 4 × 4 codes of 128. About a minute on two CPU cores.

Source: arXiv 2406.06525 (unit-length codes, loss). Deviations: as in
`tokenizer.py` beside this file.
"""

from arvision.configs import common
from arvision.configs.digits import tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.llamagen.Tokenizer')
  config.tokenizer = common.block(
    type='tokenizers.vq.VQ',
    grid=(4, 4),
    vocab_size=128,
    channels=8,
    commitment=0.25,
    normalize=True,
    **tokenizer.autoencoder(),
  )
  tokenizer.recipe(config, l2=1.0)
  return common.locked(config)
